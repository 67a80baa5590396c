"""How soon the owners of frozen connections noticed: from the first bytes that went nowhere until they gave up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import psutil
from tests.chaos.wire.link import Silence

#: What knows headrace by the URL of its broker alone bears a silence of so long.
URL_ALONE_S: Final = 8.0

#: Besides the time that a read may be silent: until the worker's next look, and the look of the proxy.
MARGIN_S: Final = 5.0


#: What is sent over the connection of running markers alone, which has CLIENT REPLY OFF.
_MARK: Final = re.compile(rb"(SET|DEL)\r\n\$\d+\r\n\S*headrace:running:|CLIENT\r\n\$5\r\nREPLY")

#: What Postgres sends unasked: that it ends a session, or a notice of that. Type, length, severity, and the code.
_NOTICE: Final = re.compile(rb"[EN]....S[A-Z]+\0(V[A-Z]+\0)?C57P0[1-3]\0", re.DOTALL)


@dataclass
class Notice:
    """What became of frozen connections. late: those that were kept for too long, each with whose it is."""

    frozen: int = 0
    swallowed_bytes: int = 0
    slowest_s: float = 0.0
    late: list[str] = field(default_factory=list)


def notice_of(silences: Iterable[Silence], timeout_s: float) -> Notice:
    """Judge them. One that nobody used hurts nobody. timeout_s: how long a read may be silent where that is set."""
    notice, now = Notice(), time.monotonic()
    allowed_s = max(timeout_s, URL_ALONE_S) + MARGIN_S
    for silence in silences:
        notice.frozen += 1
        notice.swallowed_bytes += silence.swallowed_bytes
        if silence.swallowed_at is None:
            continue
        kept_s = kept_for_s(silence, silence.swallowed_at, now)
        if kept_s > allowed_s:
            end = "still" if silence.left_at is None else "for"
            words = repr(silence.first_bytes[:48])
            notice.late.append(f"{owner_of(silence)} kept a frozen connection {end} {kept_s:.1f} s, after {words}")
        if silence.left_at is not None:
            notice.slowest_s = max(notice.slowest_s, kept_s)
    return notice


def kept_for_s(silence: Silence, swallowed_at: float, now: float) -> float:
    """Return for how long somebody waited for an answer, or used a connection that gives none."""
    left_at = silence.left_at or now
    if _MARK.search(silence.first_bytes + silence.last_request):
        # Nobody waits for an answer here, so it may lie idle for as long as it likes; it must not go on being used.
        return (silence.used_at or swallowed_at) - swallowed_at
    if _NOTICE.match(silence.first_bytes):
        # The server said something of its own accord, and nobody misses it; whoever asks after that does.
        return left_at - silence.asked_at if silence.asked_at is not None else 0.0
    return left_at - swallowed_at


def owner_of(silence: Silence) -> str:
    """Return the command of whoever still has the client's end of a connection."""
    for connection in psutil.net_connections("tcp"):
        ports = [end.port for end in (connection.laddr, connection.raddr) if end]
        if ports == [silence.port, silence.proxy_port] and connection.pid:
            try:
                words = psutil.Process(connection.pid).cmdline()[:6]
                return f"pid {connection.pid} ({' '.join(words)})"
            except psutil.Error:
                break
    return "somebody"
