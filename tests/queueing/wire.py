"""A TCP wire to a server that can be cut, frozen for ever without being closed, or made to answer with errors."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

#: What a wire forwards: a client's commands, and the server's answers to them.
BOTH_WAYS: Final = ("commands", "answers")


class Link:
    """One connection through a wire; a thread for each direction."""

    def __init__(self, wire: Wire, near: socket.socket, far: socket.socket) -> None:
        self._wire = wire
        self.near = near
        self.far = far
        self.frozen = {way: threading.Event() for way in BOTH_WAYS}
        self._answers_nothing = False
        self._sent: set[bytes] = set()
        self.threads = [
            threading.Thread(target=self._pump, args=(way,), daemon=True, name=f"wire-{way}") for way in BOTH_WAYS
        ]
        for thread in self.threads:
            thread.start()

    def _pump(self, way: str) -> None:
        source, sink = (self.near, self.far) if way == "commands" else (self.far, self.near)
        rest = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if self.frozen[way].is_set():
                    self._wire.ended.wait()
                    break
                if way == "commands":
                    data, rest = self._refused(rest + data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def _refused(self, data: bytes) -> tuple[bytes, bytes]:
        """Answer whole commands with the error line, if there is one; returns what to forward, and what to keep."""
        commands, rest = split_commands(data)
        forwarded = []
        for command in commands:
            self._sent.add(command.split(b"\r\n", 3)[2].upper())
            if b"\r\nREPLY\r\n" in command[:40].upper():
                self._answers_nothing = b"\r\nOFF\r\n" in command.upper()
            line = self._wire.error_line(command)
            if line is None:
                forwarded.append(command)
            elif not self._answers_nothing:
                self.near.sendall(line)
        return b"".join(forwarded), rest

    def has_sent(self, name: bytes) -> bool:
        """Whether the client has sent a command of this name."""
        return name in self._sent

    def freeze(self, ways: tuple[str, ...]) -> None:
        """Forward nothing any more, without closing."""
        for way in ways:
            self.frozen[way].set()

    def cut(self) -> None:
        """Close the connection."""
        for end in (self.near, self.far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Wire:
    """Listens on a port of its own and forwards to a local server."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.links: list[Link] = []
        self._lock = threading.Lock()
        self._whole = True
        self._frozen_from_now: tuple[str, ...] = ()
        self._line: bytes | None = None
        self._but = b""
        self.ended = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._whole:
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                link = Link(self, near, far)
                link.freeze(self._frozen_from_now)
                self.links.append(link)

    def error_line(self, command: bytes) -> bytes | None:
        """What a command is answered with instead of being forwarded."""
        return None if self._but and self._but in command.upper() else self._line

    def answer(self, line: str, *, but: str = "") -> None:
        """Answer each command with an error line; `but`: those with this word are forwarded. "" forwards all again."""
        self._but = but.upper().encode()
        self._line = f"-{line}\r\n".encode() if line else None

    def freeze(self, ways: tuple[str, ...] = BOTH_WAYS, *, new_ones: bool = False) -> int:
        """Forward nothing any more on the present connections, without closing them; returns how many those are.

        new_ones: connections that come are accepted and frozen too.
        """
        with self._lock:
            self._frozen_from_now = ways if new_ones else ()
            for link in self.links:
                link.freeze(ways)
            return len(self.links)

    def flow(self) -> None:
        """Let new connections through again; frozen ones stay frozen."""
        with self._lock:
            self._frozen_from_now = ()

    def cut(self) -> None:
        """Close all connections, and new ones at once, until `mend`."""
        with self._lock:
            self._whole = False
            for link in self.links:
                link.cut()

    def mend(self) -> None:
        """Accept connections again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """End all threads and close all sockets."""
        self.ended.set()
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for link in self.links:
            for thread in link.threads:
                thread.join()
            link.near.close()
            link.far.close()


def split_commands(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut what a client of Redis sends into whole commands, and the beginning of the next one."""
    commands: list[bytes] = []
    start = 0
    while (end := _end_of_command(data, start)) is not None:
        commands.append(data[start:end])
        start = end
    return commands, data[start:]


def _end_of_command(data: bytes, start: int) -> int | None:
    at = data.find(b"\r\n", start)
    if at < 0:
        return None
    count = int(data[start + 1 : at])
    at += 2
    for _ in range(count):
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        at = line_end + 2 + int(data[at + 1 : line_end]) + 2
        if at > len(data):
            return None
    return at
