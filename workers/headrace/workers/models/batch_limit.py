"""The batch limit: the most rows of a batch since one was too large, and how it rises again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

#: After this many batches in a row that were as large as the limit and succeeded, it is raised.
FULL_BATCHES: Final = 20

#: By this share, and by one row at least.
STEP: Final = 0.1


class BatchLimit:
    """Keeps the rows of a model's batches below what its device has memory for, or its server takes; pure.

    rows: the most rows at present. remember: called with each new limit, None when there is none any more.
    """

    def __init__(self, most: int, remembered: int | None, remember: Callable[[int | None], None]) -> None:
        """most: what the package allows. remembered: the limit of an earlier process."""
        self.rows = most if remembered is None else min(max(remembered, 1), most)
        self._most = most
        self._remember = remember
        self._full_batches = 0
        #: The last limit that many batches kept to; 0 while there is none.
        self._proven = 0

    def ran_out_at(self, rows: int) -> None:
        """Lower the limit: to half the rows that needed more memory than there is, or to what it was raised from."""
        lower = self._proven if 0 < self._proven < rows else max(rows // 2, 1)
        self._proven = min(self._proven, lower)
        self._full_batches = 0
        if lower < self.rows:
            self.rows = lower
            self._remember(lower)

    def refused_above(self, rows: int) -> None:
        """Lower the limit to the rows that are known to be the most; it isn't raised above them in this process."""
        self._most = min(self._most, max(rows, 1))
        self._proven = min(self._proven, self._most)
        self._full_batches = 0
        if self._most < self.rows:
            self.rows = self._most
            self._remember(self.rows)

    def succeeded_with(self, rows: int) -> bool:
        """Count a batch that succeeded; return True if that raised the limit."""
        if self.rows >= self._most or rows < self.rows:
            return False
        self._full_batches += 1
        if self._full_batches < FULL_BATCHES:
            return False
        self._full_batches = 0
        self._proven = self.rows
        self.rows = min(self.rows + max(math.floor(self.rows * STEP), 1), self._most)
        self._remember(self.rows if self.rows < self._most else None)
        return True
