"""Connections on which a test sends what it likes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class Connection:
    """A connection to a gateway."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60)

    def send(self, path: str, body: bytes = b"", *, method: str = "POST", **headers: object) -> None:
        """Send a request; headers: names with _ for -; None omits Content-Length."""
        sent: dict[str, object] = {"Host": "test", "Content-Length": len(body)}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in sent.items() if value is not None),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self) -> Answer:
        """Read one answer. Raises EOFError when the connection ends before one."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self._more()
        return Answer(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Return whether the server has closed the connection; waits for it."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bytes:
        received = self.socket.recv(65_536)
        if not received:
            raise EOFError
        return received


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Open a connection, and close it."""
    connection = Connection(url)
    with connection.socket:
        yield connection
