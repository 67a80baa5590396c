"""Bounds on waiting for a silent server: the full bound at work, next to nothing for a thread that has to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Seconds of silence after which a connection counts as dead; HEADRACE_BROKER_TIMEOUT_S. With a second for Celery to
#: greet the other workers, requests are served again within 10 s.
SILENCE_S: Final = 8.0

#: Time for a TCP connection; a server that needs longer is treated as away. Two lost SYN packets cost 3 s.
CONNECT_TIMEOUT_S: Final = 4.0

#: Whoever has to go waits this long in all for servers that are silent, ...
ALLOWANCE_S: Final = 0.8

#: ... and as long again after this time, so that a shutdown that waits for a long task still acknowledges it.
REFILL_S: Final = 10.0


#: No answer comes across a network that has to be waited for in less than this.
LEAST_S: Final = 0.02


class Patience:
    """An allowance of silence that is used up by waiting in vain, and grows again with time. Pure."""

    def __init__(self, allowance_s: float = ALLOWANCE_S, refill_s: float = REFILL_S) -> None:
        """allowance_s: the most there is. refill_s: after this time a used-up allowance is whole again."""
        self._most_s = allowance_s
        self._growth = allowance_s / refill_s
        self._left_s = allowance_s
        self._at = 0.0

    def left_s(self, now: float) -> float:
        """Return how long may be waited now; 0 if that is too short for any server."""
        left_s = self._left(now)
        return left_s if left_s >= LEAST_S else 0.0

    def _left(self, now: float) -> float:
        return max(0.0, min(self._most_s, self._left_s + (now - self._at) * self._growth))

    def waited(self, silent_s: float, now: float) -> None:
        """Take note of a wait that ended now and brought nothing."""
        self._left_s = max(0.0, self._left(now - silent_s) - silent_s)
        self._at = now


class Suspicion:
    """Counts how often a connection of this process was found silent, or led to a server that doesn't serve any more.

    Whatever happened to one may have happened to all. A connection that was made before the latest time is replaced
    before it is used again; to find out for each of them would take the bound every time.
    """

    def __init__(self) -> None:
        """No connection was found silent."""
        self.count = 0

    def raise_(self) -> None:
        """Suspect all present connections. Threads that do so at the same time may count as one."""
        self.count += 1


#: Of this process. A child process inherits the number, which does no harm.
suspicion: Final = Suspicion()


class _Closing(threading.local):
    """The number of channels that this thread is closing, one inside the other."""

    depth = 0


_closing: Final = _Closing()
_patience: Final = Patience()
_lock: Final = threading.Lock()


@contextmanager
def closing() -> Iterator[None]:
    """Let this thread wait as one that has to go: it closes a channel whose connections may have gone silent."""
    _closing.depth += 1
    try:
        yield
    finally:
        _closing.depth -= 1


def is_hurried() -> bool:
    """Return whether this thread has to go: it closes a channel, or its Celery worker was told to stop."""
    return _closing.depth > 0 or _told_to_stop()


def _told_to_stop() -> bool:
    # Nobody calls the transport when the signal comes: Celery's handler only sets these. Never imported from here.
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return False
    # An exit code of 0 means to stop; False and None mean not to.
    return not all(told is None or told is False for told in (state.should_stop, state.should_terminate))


def left_s() -> float:
    """Return how long a thread that is hurried may wait now."""
    with _lock:
        return _patience.left_s(time.monotonic())


def waited(silent_s: float) -> None:
    """Take note that a hurried thread waited in vain."""
    with _lock:
        _patience.waited(silent_s, time.monotonic())
