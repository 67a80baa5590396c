"""Faults of the wire, which are the same for both servers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from tests.chaos.faults.spans import MET_S
from tests.chaos.schedule import Fault
from tests.chaos.wire.link import Direction, Silence
from tests.chaos.wire.proxy import Proxy

from headrace.cli.stack.servers import Server

#: Connections that lose a reply at one time.
REPLIES_CUT: Final = 3

#: Connections that nobody used for so long after they froze may not be used at all.
NEXT_S: Final = 1.0

#: How often it is looked whether a fault was met.
LOOK_S: Final = 0.05


def met(happened: Callable[[], bool], patience_s: float = MET_S) -> bool:
    """Wait until something has happened; False when the time is up."""
    ends_at = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > ends_at:
            return False
        time.sleep(LOOK_S)
    return True


def restart(server: Server, number: signal.Signals, away_s: float = 0.0) -> bool:
    """End a server by a signal, wait, and start it again on the same data, as its supervisor would."""
    if number == signal.SIGKILL:
        server.kill()
    else:
        os.kill(server.pid, number)
        server.child.exited.wait()
    time.sleep(away_s)
    server.start()
    return True


def cut(proxy: Proxy) -> bool:
    """Cut every connection."""
    proxy.cut()
    return True


def cut_replies(proxy: Proxy) -> bool:
    """Cut some connections in the middle of a reply."""
    proxy.cut_replies(REPLIES_CUT)
    return True


def stall(proxy: Proxy, seconds: float) -> bool:
    """Hold everything back for a while."""
    proxy.stall()
    time.sleep(seconds)
    proxy.flow()
    return True


def refuse(proxy: Proxy, seconds: float) -> bool:
    """Cut every connection and refuse new ones for a while."""
    proxy.refuse()
    time.sleep(seconds)
    proxy.flow()
    return True


def freeze(proxy: Proxy, direction: Direction, fault: Fault) -> bool:
    """Freeze all connections or a random half of them for ever; done once one of them has swallowed something."""
    share = 0.5 if fault.fraction < 0.5 else 1.0
    rng = random.Random(fault.fraction)
    frozen: list[Silence] = []
    ends_at = time.monotonic() + MET_S
    while time.monotonic() < ends_at:
        frozen.extend(proxy.freeze(direction, share, rng))  # more, while nobody uses those that are
        if met(lambda: any(each.swallowed_bytes for each in frozen), NEXT_S):
            return True
    return False


def vanish(proxy: Proxy, seconds: float) -> bool:
    """Let the server's host be gone for a while: neither old nor new connections get an answer."""
    proxy.vanish()
    time.sleep(seconds)
    proxy.flow()
    return True
