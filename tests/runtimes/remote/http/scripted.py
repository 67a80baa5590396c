"""A real HTTP server on loopback that answers the bytes that a test writes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import BinaryIO, TypeAlias

from headrace.runtimes.remote.base import Address


@dataclass(frozen=True)
class Asked:
    """A request as it arrived. connection: number of the connection, from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int = 0


#: Bytes keep the connection open; pieces close it at their end, and None at once.
Reaction: TypeAlias = bytes | Iterable[bytes] | None
Answerer: TypeAlias = Callable[[Asked], Reaction]


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of an answer. headers: with _ for -."""
    fields = {"content-type": "application/json", "content-length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Odd"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items() if value), "", ""]
    return "\r\n".join(lines).encode() + body


class ScriptedServer:
    """Listens until it is stopped; every connection has a thread."""

    def __init__(self, answer: Answerer, context: ssl.SSLContext | None = None) -> None:
        """answer: returns what to send for a request. context: of TLS."""
        self.answer = answer
        self.asked: list[Asked] = []
        self.stopping = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.address = Address("https" if context else "http", "127.0.0.1", port)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def connections(self) -> int:
        """How many connections clients have made."""
        return len(self._open)

    def drip(self, body: bytes, every_s: float = 0.02) -> Iterator[bytes]:
        """Yield a body byte by byte until the server stops."""
        for at in range(len(body)):
            yield body[at : at + 1]
            if self.stopping.wait(every_s):
                return

    def stop(self) -> None:
        """Close everything."""
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            number = len(self._open)
            self._open.append(plain)
            self._start(partial(self._serve, plain, number))

    def _serve(self, plain: socket.socket, number: int) -> None:
        # Clients hang up in the middle, which is what tests are about.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(plain)
            connection = plain
            if self._context:
                connection = stack.enter_context(self._context.wrap_socket(plain, server_side=True))
            file = stack.enter_context(connection.makefile("rb"))
            while (asked := _read(file, number)) is not None:
                if not asked.method.isalpha():
                    connection.sendall(reply(400, b"Invalid HTTP request received.", connection="close"))
                    return
                self.asked.append(asked)
                reaction = self.answer(asked)
                if not isinstance(reaction, bytes):
                    for piece in reaction or ():
                        connection.sendall(piece)
                    return
                connection.sendall(reaction)


def _read(file: BinaryIO, number: int) -> Asked | None:
    start = file.read(1)
    if not start:
        return None
    if not start.isalpha():
        # A client that begins with TLS.
        return Asked("?", "", {}, start)
    method, path, _ = (start + file.readline()).decode("latin-1").split(" ")
    headers = {}
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, file.read(int(headers.get("content-length", 0))), number)
