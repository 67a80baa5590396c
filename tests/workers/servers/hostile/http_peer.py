"""A model server of the Open Inference Protocol over HTTP whose answers a test writes byte by byte."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.runtimes.remote.wrong_answers import json_answer

#: What a model of the server answers a batch with; it raises `Hangup` to close the connection.
Behaviour = Callable[["Call"], None]


class Hangup(Exception):
    """The connection is closed, and nothing more is written to it."""


@dataclass
class Call:
    """One HTTP request and the connection it came on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: socket.socket

    @property
    def json(self) -> dict[str, Any]:
        """The JSON of the body."""
        length = int(self.headers.get("inference-header-content-length", len(self.body)))
        return dict(json.loads(self.body[:length]))

    @property
    def x(self) -> NDArray[np.float32]:
        """The input, FP32 [rows, 1], from JSON or bytes."""
        (tensor,) = self.json["inputs"]
        if "data" in tensor:
            return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        start = int(self.headers["inference-header-content-length"])
        return np.frombuffer(self.body[start:], np.float32).reshape(tensor["shape"])

    def send(self, data: bytes) -> None:
        """Write these bytes as they are."""
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Hangup from error

    def respond(self, body: bytes | str, status: str = "200 OK", **headers: str) -> None:
        """Answer; header names have '_' in place of '-'."""
        data = body.encode() if isinstance(body, str) else body
        lines = {"content_type": "application/json", "content_length": str(len(data)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value is not None)
        self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + data)

    def refuse(self, status: str, text: str = "no", **headers: str) -> None:
        """Answer with an error of the protocol."""
        self.respond(json.dumps({"error": text}), status, **headers)


def well(call: Call) -> None:
    """Answer y = 2·x."""
    call.respond(json.dumps(json_answer(2 * call.x)))


@dataclass
class Model:
    """One model of a server: what it does now, and the rows of the batches that came."""

    infer: Behaviour = well
    metadata: Behaviour | None = None
    ready: Behaviour | None = None
    calls: list[int] = field(default_factory=list)


class HttpPeer:
    """Listens until `close`; each name is a model."""

    def __init__(self, port: int = 0) -> None:
        self.models: dict[str, Model] = defaultdict(Model)
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(Hangup, OSError), connection:
            stream = connection.makefile("rb")
            while (call := _read(stream, connection)) is not None:
                self._serve(call)
        self._open.discard(connection)

    def _serve(self, call: Call) -> None:
        parts = [part for part in call.path.split("?")[0].split("/") if part]
        name = parts[2] if parts[:2] == ["v2", "models"] and len(parts) > 2 else ""
        model = self.models[name]
        if parts[-1:] == ["infer"]:
            model.calls.append(call.x.shape[0])
            model.infer(call)
        elif parts[-1:] == ["ready"]:
            (model.ready or _ready)(call)
        elif name:
            (model.metadata or _metadata)(call)
        else:
            call.respond(json.dumps({"name": "peer", "version": "1", "live": True, "extensions": []}))


def _ready(call: Call) -> None:
    call.respond(json.dumps({"ready": True, "live": True}))


def metadata(datatype: str = "FP32", size: int = 1) -> dict[str, Any]:
    """Return the metadata of a model with the input `x` and the output `y`."""
    tensors = [{"name": name, "datatype": datatype, "shape": [-1, size]} for name in "xy"]
    return {"name": "m", "versions": ["1"], "platform": "peer", "inputs": tensors[:1], "outputs": tensors[1:]}


def _metadata(call: Call) -> None:
    call.respond(json.dumps(metadata()))


def _read(stream: Any, connection: socket.socket) -> Call | None:
    if not stream.peek(1)[:1].isalpha() or len(words := stream.readline().decode("latin-1").split(" ")) != 3:
        # As real servers do when somebody speaks TLS or gRPC to them.
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return None
    method, path, _ = words
    headers = {}
    while (line := stream.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b"".join(iter(lambda: _chunk(stream), b""))
    else:
        length = int(headers.get("content-length", 0))
        body = stream.read(length)
        if len(body) < length:
            raise Hangup
    return Call(method, path, headers, body, connection)


def _chunk(stream: Any) -> bytes:
    size = int(stream.readline().split(b";")[0], 16)
    data = bytes(stream.read(size))
    stream.readline()
    return data


def reset(call: Call) -> None:
    """Close the connection with a TCP reset."""
    call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Hangup
