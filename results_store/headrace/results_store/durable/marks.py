"""Marks durable blocks as sent, in groups: one statement for all that are noted within a moment."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from headrace.contracts.errors import HeadraceError

#: A mark is made so long after it was noted; much less than the time after which a relay sends what isn't marked.
MARK_S: Final = 0.25

#: So many are made at once, without waiting for the time.
MOST: Final = 1024

_log: Final = logging.getLogger(__name__)


class Marks:
    """Notes which blocks were sent; usable from several threads.

    A mark of its own for each call would be a second statement for each, a third of what keeping it costs. A mark that
    gets lost costs that a relay sends the block once more, which has no effect.
    """

    def __init__(self, make: Callable[[Sequence[uuid.UUID]], None]) -> None:
        """make: marks blocks; its HeadraceErrors are logged."""
        self._make = make
        self._lock = threading.Lock()
        self._noted: list[uuid.UUID] = []
        self._timer: threading.Timer | None = None

    def note(self, block_id: uuid.UUID) -> None:
        """Have a block marked soon."""
        with self._lock:
            self._noted.append(block_id)
            if self._timer is None:
                # Not a daemon: a process that ends after it has submitted waits for this moment.
                self._timer = threading.Timer(MARK_S, self.make_now)
                self._timer.name = "headrace-marks"
                self._timer.start()
            full = len(self._noted) >= MOST
        if full:
            self.make_now()

    def make_now(self) -> None:
        """Mark all that was noted."""
        with self._lock:
            noted, self._noted = self._noted, []
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if not noted:
            return
        try:
            self._make(noted)
        except HeadraceError as exc:
            _log.info("durable_not_marked blocks=%d error=%r", len(noted), exc.message)
