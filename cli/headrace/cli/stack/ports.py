"""Free ports on the loopback address."""

from __future__ import annotations

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def free_port(wanted: int = 0) -> int:
    """Return `wanted` if it is free (0: any), else another free port; until it is used another program may take it."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
