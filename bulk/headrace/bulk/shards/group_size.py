"""How many rows a group has: one batch at first, then as many as the model runs in a short while. Pure."""

from __future__ import annotations

from typing import Final

#: A shard is told to stop between groups only: what is paused, or ends with its worker, waits for as long as one takes.
GROUP_S: Final = 0.5


class GroupSize:
    """Decides on the size of groups by the pace so far; always a multiple of the batch, so that batches stay the same.

    `learn` and the calls may come from different threads.
    """

    def __init__(self, batch_rows: int, most_rows: int, *, fixed: bool = False) -> None:
        """fixed: whether all groups have `most_rows`, since results depend on where they begin."""
        self._batch_rows = batch_rows
        self._most_rows = most_rows
        self._fixed = fixed
        self._rows = most_rows if fixed else min(batch_rows, most_rows)
        self._decided = (-1, 0)

    def __call__(self, start: int) -> int:
        """Return how many rows the group has that begins at a position; the same whenever it is asked for that one."""
        if self._decided[0] != start:
            self._decided = (start, self._rows)
        return self._decided[1]

    def learn(self, rows: int, seconds: float) -> None:
        """Take note of how long the model ran a group."""
        if self._fixed:
            return
        wanted = self._most_rows if seconds <= 0 else int(min(rows / seconds * GROUP_S, self._most_rows))
        self._rows = max(wanted // self._batch_rows, 1) * self._batch_rows
