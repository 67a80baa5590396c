"""Sockets of an HTTP connection whose waits end together with the call that they are part of."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import httpcore

#: When the call of this thread ends, by the monotonic clock. One number for connecting, sending and every read: with
#: a time limit for each of them, a server that answers byte by byte would hold a call forever.
_ends_at: ContextVar[float] = ContextVar("ends_at")


@contextlib.contextmanager
def call_until(ends_at: float) -> Iterator[None]:
    """End all waiting on the network within the block at that time of the monotonic clock."""
    token = _ends_at.set(ends_at)
    try:
        yield
    finally:
        _ends_at.reset(token)


def _left_s(error: type[Exception]) -> float:
    left_s = _ends_at.get() - time.monotonic()
    if left_s <= 0:
        raise error("the time of the call is over")
    return left_s


class DeadlineStream(httpcore.NetworkStream):
    """A connected socket."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        """inner: the socket as httpcore opens it."""
        self._inner = inner
        self._read_since_write = True

    @property
    def unasked(self) -> bool:
        """Whether nothing was read since the request was written: the answer belongs to an earlier one."""
        return not self._read_since_write

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """Return what has arrived."""
        self._read_since_write = True
        return self._inner.read(max_bytes, _left_s(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send all of a buffer; httpcore's own way gives each part of it the time of the whole."""
        self._read_since_write = False
        sock = self._inner.get_extra_info("socket")
        rest = memoryview(buffer)
        try:
            while rest:
                sock.settimeout(_left_s(httpcore.WriteTimeout))
                rest = rest[sock.send(rest) :]
        except TimeoutError as exc:
            raise httpcore.WriteTimeout(exc) from exc
        except OSError as exc:
            raise httpcore.WriteError(exc) from exc

    def close(self) -> None:
        """Close the socket."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Return the encrypted stream."""
        left_s = _left_s(httpcore.ConnectTimeout)
        return DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> Any:
        """Return a fact of the socket, by httpcore's names."""
        return self._inner.get_extra_info(info)


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections within the time of their call."""

    def __init__(self) -> None:
        """Use httpcore's own sockets."""
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that answers."""
        trouble: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port):
            try:
                left_s = _left_s(httpcore.ConnectTimeout)
                return DeadlineStream(self._inner.connect_tcp(address, port, left_s, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                trouble = exc
        raise trouble


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore.ConnectError(exc) from exc
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
