"""Attributes an error of a write to its cause: the server, or particular rows.

No list of codes decides that alone, since triggers, poolers and extensions raise whatever they like. What decides is
whether other writes pass at the same time: then the row is to blame, whatever the code. The codes only say how often a
row is tried before that is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: SQLSTATE classes that blame the data of a row, whatever becomes of other writes: data exceptions, constraint
#: violations, program limits.
_DATA_CLASSES: Final = ("22", "23", "54")

#: SQLSTATE classes and codes that may pass by themselves: connection, transaction rollback, resources, object in use,
#: operator intervention, system and internal errors (a file that can't grow, for one).
_PASSING: Final = ("08", "25006", "40", "53", "55", "57", "58", "XX")

#: A lock that another session holds: one that a dead connection left behind stays until the server notices.
_LOCKED: Final = "55P03"

#: A row is to blame when its writes were refused so often while others passed: over 3.5 s, by the pauses below.
TRIES: Final = 4

#: The same for locks: over about 90 s, more than a server takes to end a session whose client has vanished.
LOCKED_TRIES: Final = 22

#: Pauses before the next try of a row: they double from the first to the last.
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 5.0


def is_data_error(code: str) -> bool:
    """Return whether a code means that a row's data are at fault, even when other writes fail as well."""
    return code.startswith(_DATA_CLASSES)


def may_pass(code: str) -> bool:
    """Return whether a row that was refused with this code may be taken later."""
    return code.startswith(_PASSING)


def is_rejected_for_good(code: str, tries: int) -> bool:
    """Return whether a row that was refused this often, while other writes passed, will never be taken."""
    if code == _LOCKED:
        return tries >= LOCKED_TRIES
    return not may_pass(code) or tries >= TRIES


def pause_s(tries: int) -> float:
    """Return how long to wait before a row that was refused this often is tried again."""
    return float(min(FIRST_PAUSE_S * 2 ** min(tries - 1, 10), LAST_PAUSE_S))


class Bisection:
    """A bisection that finds all refused rows and has every other row written: a plan without I/O.

    Ask for a piece (`following`) and write it; call `refused` if it was; until there is none.
    With k refused rows among n it takes at most 2·k·(log2(n) + 1) + 1 writes, plus those that `limit_bytes` costs.
    """

    def __init__(self, sizes_bytes: Sequence[int], limit_bytes: int) -> None:
        """sizes_bytes: of each row. limit_bytes: larger pieces of several rows are cut before they are tried."""
        self._sizes_bytes = sizes_bytes
        self._limit_bytes = limit_bytes
        self._pending = [(0, len(sizes_bytes))] if sizes_bytes else []
        self._current = (0, 0)

    def following(self) -> tuple[int, int] | None:
        """Return the next rows to write, from the first to before the second; None when all are decided."""
        while self._pending:
            start, stop = self._current = self._pending.pop()
            if stop - start == 1 or sum(self._sizes_bytes[start:stop]) <= self._limit_bytes:
                return self._current
            self._halve()
        return None

    def refused(self) -> int | None:
        """Record that the last piece was refused; return the row when it was one alone."""
        start, stop = self._current
        if stop - start == 1:
            return start
        self._halve()
        return None

    def _halve(self) -> None:
        start, stop = self._current
        middle = (start + stop) // 2
        self._pending += [(middle, stop), (start, middle)]
