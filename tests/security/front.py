"""TLS in front of a server that has none: what a managed Redis or Postgres looks like from outside."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Made by certificates/make.sh; valid for localhost and 127.0.0.1, for a hundred years.
CERTIFICATES: Final = Path(__file__).parent / "certificates"
AUTHORITY: Final = CERTIFICATES / "authority.pem"

#: What a Postgres client sends before TLS: https://www.postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_GSS_REQUEST: Final = struct.pack("!ii", 8, 80877104)


class TlsFront:
    """Listens on a loopback port, speaks TLS there, and passes everything on in plain to `open_back`.

    postgres: whether clients ask for TLS first, as Postgres clients do; who doesn't ask is sent away.
    """

    def __init__(self, open_back: Callable[[], socket.socket], *, postgres: bool = False) -> None:
        self._open_back = open_back
        self._postgres = postgres
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, raw)

    def _serve(self, raw: socket.socket) -> None:
        try:
            if self._postgres and not _asks_for_tls(raw):
                raw.close()
                return
            near = self._context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        far = self._open_back()
        with self._lock:
            self._ends += [near, far]
        self._start(_pump, far, near)
        _pump(near, far)

    def close(self) -> None:
        """Cut all connections and stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends, threads = list(self._ends), list(self._threads)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        for end in ends:
            end.close()


def _asks_for_tls(raw: socket.socket) -> bool:
    while (request := raw.recv(8, socket.MSG_WAITALL)) == _GSS_REQUEST:
        raw.sendall(b"N")
    if request != _SSL_REQUEST:
        return False
    raw.sendall(b"S")
    return True


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
