"""Sending small messages on a socket without letting go of the GIL.

Python's own `send` lets go of the GIL, which a thread that decodes messages then keeps for a switch interval, while the
sender waits; for one send per batch that cost 5 % of the throughput. A small send into a socket that has room takes
some 10 µs.
"""

from __future__ import annotations

import ctypes
import socket
import ssl
from typing import Any, Final, Protocol, cast


class _Send(Protocol):
    """send(2): returns how many bytes were taken, or -1."""

    def __call__(self, fd: int, data: bytes, size: int, flags: int) -> int: ...


def _find_send() -> _Send:
    """Find the C library's function, which keeps the GIL when it is called like this. Python ignores SIGPIPE."""
    send: Any = ctypes.PyDLL(None).send
    send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    send.restype = ctypes.c_ssize_t
    return cast("_Send", send)


_SEND: Final = _find_send()

#: Lets Linux keep data for up to 0.2 s, in which more may join it; when the process dies the kernel sends it at once,
#: for it closes the socket. Saves waking the receiver each time. Elsewhere, and on Unix sockets, data leaves at once.
MAY_WAIT: Final[int] = getattr(socket, "MSG_MORE", 0)


def send_all(sock: socket.socket, data: bytes, flags: int = 0) -> None:
    """Send as much as fits into the socket at once, which is nearly always all, and wait for the rest.

    flags: 0 or MAY_WAIT. Raises OSError.
    """
    if not isinstance(sock, ssl.SSLSocket):
        taken = _SEND(sock.fileno(), data, len(data), flags | socket.MSG_DONTWAIT)
        # -1, full or broken: `sendall` waits, or raises what is wrong.
        data = data[max(taken, 0) :]
    if data:
        sock.sendall(data)
