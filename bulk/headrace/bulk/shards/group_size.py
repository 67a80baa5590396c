"""How many rows a group has: one batch at first, then as many as the model runs in a short while. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.bulk.shards.throttle import most_rows

#: A shard is told to stop between groups only: what is paused, or ends with its worker, waits for as long as one takes.
GROUP_S: Final = 0.5


class GroupSize:
    """Decides on the size of groups by the pace so far; always a multiple of the batch, so that batches stay the same.

    `learn` and the calls may come from different threads.
    """

    def __init__(
        self, batch_rows: int, group_rows: int, rows_per_s: Callable[[], float] = lambda: 0.0, *, fixed: bool = False
    ) -> None:
        """group_rows: the most. rows_per_s: the bound of the shard, which may change; 0 is none.

        fixed: whether all groups have `group_rows`, since results depend on where they begin.
        """
        self._batch_rows = batch_rows
        self._group_rows = group_rows
        self._rows_per_s = rows_per_s
        self._fixed = fixed
        self._rows = group_rows if fixed else min(batch_rows, group_rows)
        self._decided = (-1, 0)

    def __call__(self, start: int) -> int:
        """Return how many rows the group has that begins at a position; the same whenever it is asked for that one."""
        if self._decided[0] != start:
            bound = 0.0 if self._fixed else self._rows_per_s()
            self._decided = (start, most_rows(self._rows, self._batch_rows, bound))
        return self._decided[1]

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of how long the model ran a group."""
        if self._fixed:
            return
        wanted = self._group_rows if seconds <= 0 else int(min(rows / seconds * GROUP_S, self._group_rows))
        self._rows = max(wanted // self._batch_rows, 1) * self._batch_rows
