"""GIL handoff: the main thread steps aside while a small claim passes through the worker's other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

#: The main thread steps aside for up to this many requests. More are a sign of a backlog, in which it is the
#: bottleneck itself.
SMALL_CLAIM: Final = 4

#: A small model's batch is on its way to Postgres after 0.2 ms; for a large one nothing is gained, nor much lost.
LONGEST_S: Final = 0.0005


class GilHandoff:
    """Keeps the main thread from taking the interpreter while a few requests are on their way to Postgres.

    They pass through two threads, each of which needs the interpreter, and the main thread needs it as well: it takes
    0.1 ms to prepare its next wait. It does that while all others wait for the disk, which costs nobody anything.
    """

    def __init__(self) -> None:
        """No request is on its way yet."""
        self._free = threading.Event()

    def run_and_yield(self, start: Callable[[], None]) -> None:
        """Start requests on their way, and wait until they are sent to Postgres, for LONGEST_S at most."""
        self._free.clear()
        start()
        self._free.wait(LONGEST_S)

    def release(self) -> None:
        """Let the main thread go on; any thread."""
        self._free.set()
