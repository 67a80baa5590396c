"""The repetition of calls to TorchServe, whose batches fail as a whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.runtimes.remote.base import ServerAway

T = TypeVar("T")


class Repetition:
    """Makes refused calls once more, one at a time.

    When a model on TorchServe raises, all calls that it had gathered fail, whosever values they were.
    """

    def __init__(self, where: str) -> None:
        """where: the model and its server, for the message."""
        self._where = where
        #: By process: a lock that was held at a fork stays so.
        self._locks: dict[int, threading.Lock] = {}

    def alone(self, call: Callable[[], T], ends_at: float) -> T:
        """Make a call beside no other repetition. ends_at: monotonic seconds. Raises ServerAway, and what it raises."""
        lock = self._locks.setdefault(os.getpid(), threading.Lock())
        if not lock.acquire(timeout=max(ends_at - time.monotonic(), 0)):
            raise ServerAway(f"{self._where}: no answer in time")
        try:
            return call()
        finally:
            lock.release()
