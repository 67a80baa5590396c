"""The size of batches that pays, for every command that advises on one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Share of the best throughput that is enough: the last tenth is bought with batches several times as large and slow.
ENOUGH: Final = 0.9

#: What a worker spends on a batch besides its run: claim, commit, replies, acknowledgement
#: (docs/decisions/0005-where-the-time-goes.md, one request at a time).
WORKER_S: Final = 0.001


def knee_of(points: Sequence[tuple[int, float]]) -> int:
    """Return the fewest rows whose throughput is enough. points: (rows, seconds), at least one."""
    best = max(rows / seconds for rows, seconds in points)
    return min(rows for rows, seconds in points if rows / seconds >= ENOUGH * best)


def paying_rows(points: Sequence[tuple[int, float]]) -> int:
    """Return the rows of a batch that pay in a worker, where each batch costs WORKER_S more: the knee then.

    The smaller the model, the more it has to be shared. points: (rows, seconds) of runs, at least one.
    """
    return knee_of([(rows, seconds + WORKER_S) for rows, seconds in points])
