"""Faults of the rows of a table, and rows that are left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.bulk.columns.base import Refused
from headrace.bulk.columns.nulls import NullPolicy


class Findings:
    """Rows of one table that are bad or skipped; of several reasons the first counts."""

    def __init__(self, rows: int, policy: NullPolicy) -> None:
        """rows: of the table."""
        self._rows = rows
        self._policy = policy
        self._skipped: NDArray[np.bool_] | None = None
        #: Position in the table → why the row is bad.
        self.refused: Final[dict[int, Refused]] = {}

    def refuse(self, rows: Iterable[int], kind: str, message: str, *, stage: str = "prepare") -> None:
        """Refuse rows, all for one reason."""
        for at in rows:
            row = int(at)
            if row not in self.refused:
                self.refused[row] = Refused(at=row, stage=stage, type=kind, message=message)

    def nulls(self, rows: NDArray[np.int64], what: str) -> None:
        """Skip or refuse rows that have a null; what: such as "column 'x'"."""
        if self._policy.action == "skip":
            if self._skipped is None:
                self._skipped = np.zeros(self._rows, np.bool_)
            self._skipped[rows] = True
            return
        hint = "" if self._policy.action == "fill" else "; --on-null skip or fill=VALUE allows it"
        self.refuse(rows.tolist(), "NullValue", f"{what} is null{hint}")

    def good(self) -> NDArray[np.int64]:
        """Return the rows that are neither bad nor skipped, in order."""
        if not self.refused and self._skipped is None:
            return np.arange(self._rows)
        mask = np.ones(self._rows, np.bool_)
        mask[self.skipped()] = False
        mask[list(self.refused)] = False
        return np.flatnonzero(mask)

    def skipped(self) -> NDArray[np.int64]:
        """Return the rows that are left out on purpose; one with a null is, whatever else is wrong with it."""
        return np.empty(0, np.int64) if self._skipped is None else np.flatnonzero(self._skipped)

    def bad(self) -> list[Refused]:
        """Return the bad rows, in order."""
        left_out = set() if self._skipped is None else set(self.skipped().tolist())
        return [self.refused[at] for at in sorted(self.refused) if at not in left_out]


def taken(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return some rows of an array; a view where they follow each other."""
    count = len(rows)
    if count and int(rows[-1]) - int(rows[0]) == count - 1 and (count < 3 or (np.diff(rows) == 1).all()):
        return values[int(rows[0]) : int(rows[0]) + count]
    return values[rows]
