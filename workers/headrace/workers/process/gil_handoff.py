"""Right of way: a request that comes alone passes through the worker's threads before the main thread goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

#: Up to this many requests have the right of way. More are a sign of a backlog, in which the main thread is what all
#: wait for.
FEW: Final = 4

#: A small model's batch is on its way to Postgres after 0.2 ms; for a large one nothing is gained, nor much lost.
LONGEST_S: Final = 0.0005


class RightOfWay:
    """Keeps the main thread from taking the interpreter while a few requests are on their way to Postgres.

    They pass through two threads, each of which needs the interpreter, and the main thread needs it as well: it takes
    0.1 ms to prepare its next wait. It does that while all others wait for the disk, which costs nobody anything.
    """

    def __init__(self) -> None:
        """Nobody is on the way."""
        self._free = threading.Event()

    def give(self, start: Callable[[], None]) -> None:
        """Start requests on their way and step aside until it is free again, or for LONGEST_S."""
        self._free.clear()
        start()
        self._free.wait(LONGEST_S)

    def make_free(self) -> None:
        """Let the main thread go on; any thread."""
        self._free.set()
