"""One connection through a proxy, and what it swallows once it is frozen."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass
from enum import Flag, auto
from typing import Final, TypeAlias

#: States of TCP in which the other end has left; from <netinet/tcp.h>.
_LEFT: Final = frozenset({7, 8})

#: Where TCP_INFO has the milliseconds since the last data came; and how much of it is read.
_LAST_RECEIVED: Final = slice(52, 56)
_INFO_BYTES: Final = 104

#: How soon it is seen that a peer has left a frozen connection.
LOOK_S: Final = 0.1

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Direction(Flag):
    """Which way bytes go."""

    REQUESTS = auto()
    REPLIES = auto()
    BOTH = REQUESTS | REPLIES


@dataclass
class Silence:
    """A frozen connection. Times are monotonic seconds.

    port, proxy_port: of the peer's end, and of ours. swallowed_at: when the first bytes went nowhere. left_at: when the
    peer gave it up. asked_at, used_at: when the peer first and last sent anything after that, None if it didn't.
    first_bytes: the beginning of what was swallowed, which tells whose connection it is. last_request: the end of what
    the peer had sent before.
    """

    port: int
    proxy_port: int
    direction: Direction
    swallowed_bytes: int = 0
    swallowed_at: float | None = None
    asked_at: float | None = None
    used_at: float | None = None
    left_at: float | None = None
    first_bytes: bytes = b""
    last_request: bytes = b""

    def swallow(self, piece: bytes) -> None:
        """Count bytes that nobody will ever see."""
        if self.swallowed_at is None and piece:
            self.swallowed_at, self.first_bytes = time.monotonic(), piece[:80]
        self.swallowed_bytes += len(piece)

    def sent(self, at: float) -> None:
        """Note when the peer last sent something."""
        if self.swallowed_at is not None and at > self.swallowed_at + LOOK_S:
            self.asked_at = self.asked_at or at
            self.used_at = at


class Link:
    """One connection: a client's end, and a server's. silence: what it is once it is frozen."""

    def __init__(self, client: Streams, server: Streams) -> None:
        self.client = client
        self.server = server
        self.silence: Silence | None = None
        #: The end of what the client sent last.
        self.last_request = b""

    def freeze(self, direction: Direction) -> Silence:
        """Swallow from now on, for ever, all that goes in a direction. Neither end is closed."""
        if self.silence is None:
            (_, port), (_, proxy_port) = map(self.client[1].get_extra_info, ("peername", "sockname"))
            self.silence = Silence(port, proxy_port, direction, last_request=self.last_request)
        self.silence.direction |= direction
        return self.silence

    def swallows(self, direction: Direction) -> bool:
        """Whether nothing goes in this direction any more."""
        return self.silence is not None and direction in self.silence.direction

    async def swallow(self, piece: bytes) -> None:
        """Take the first bytes that get lost, read no more, and return when the client has given the connection up.

        As on a real wire, what is written later fills the buffers of the kernel until a write blocks; and an end that
        one side puts to its stream (an empty piece) is not heard by the other.
        """
        assert self.silence is not None
        self.silence.swallow(piece)
        end: socket.socket = self.client[1].get_extra_info("socket")
        while end.fileno() >= 0:
            info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
            if info[0] in _LEFT:
                return
            self.silence.sent(time.monotonic() - int.from_bytes(info[_LAST_RECEIVED], sys.byteorder) / 1000)
            await asyncio.sleep(LOOK_S)

    def way(self, direction: Direction) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return where bytes of a direction come from, and where they go."""
        source, target = (self.client, self.server) if direction is Direction.REQUESTS else (self.server, self.client)
        return source[0], target[1]

    def end(self) -> None:
        """Reset the client's end, and the server's too, unless nothing that the client sends would reach it."""
        if self.silence is not None and self.silence.left_at is None:
            self.silence.left_at = time.monotonic()
        self.client[1].transport.abort()
        if not self.swallows(Direction.REQUESTS):
            self.server[1].transport.abort()

    def reset(self) -> None:
        """Reset both ends, as a proxy that is restarted does."""
        for _, writer in (self.client, self.server):
            writer.transport.abort()
