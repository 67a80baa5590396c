"""The bound on a shard's rows a second: which groups may go when, and how large they are. Pure."""

from __future__ import annotations

from typing import Final

#: Seconds of the bound that a group holds at most, as far as batches allow: what is read and written comes evenly.
BURST_S: Final = 0.5


class Throttle:
    """Spreads the rows of a shard over time.

    Each group waits for the time that its own rows take, the first one too: shards of a few rows, one after the
    other, stay below the bound like a long one.
    """

    def __init__(self, now: float) -> None:
        """now: when the shard begins, on the clock of all later calls."""
        self._paid_until = now

    def goes_at(self, now: float, rows: int, rows_per_s: float) -> float:
        """Return when a group may go. rows_per_s: the bound as it is now; 0 is none."""
        if rows_per_s <= 0:
            return now
        return max(self._paid_until + rows / rows_per_s, now)

    def went(self, now: float) -> None:
        """Take note that a group went. Time in which the shard was slower than its bound is not made up for."""
        self._paid_until = now


def most_rows(rows: int, batch_rows: int, rows_per_s: float) -> int:
    """Return how many rows a group may have under a bound: whole batches of at most `rows`, but at least one."""
    if rows_per_s <= 0:
        return rows
    return max(int(min(rows, rows_per_s * BURST_S)) // batch_rows, 1) * batch_rows
