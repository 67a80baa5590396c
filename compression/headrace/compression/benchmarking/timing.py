"""The time of a batch size, estimated from many runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from headrace.compression.benchmarking.protocol import Block

#: The quantile of runs that is taken as the time of one that nothing disturbed.
_UNDISTURBED: Final = 0.1


class Timing(msgspec.Struct, frozen=True):
    """Batches of one size.

    seconds: of a run that nothing disturbed: the quickest tenth; with one thread, without the time for which others
    had its core. median_seconds, p95_seconds: of all runs, by the clock. On a quiet machine the first two agree. On a
    busy one they can't: it interrupts runs that are longer than its time slice and spares the others, so that by the
    clock a large batch or a slow model looks worse than it is.
    """

    seconds: float
    median_seconds: float
    p95_seconds: float
    rows_per_second: float
    runs: int


def timing_of(rows: int, blocks: Sequence[Block]) -> Timing:
    """Sum up blocks of runs of `rows` rows; at least one."""
    seconds = float(np.median(undisturbed(blocks)))
    runs = np.concatenate([np.asarray(block.seconds) for block in blocks])
    middle, slow = (float(value) for value in np.quantile(runs, [0.5, 0.95]))
    return Timing(seconds, middle, slow, rows / seconds, len(runs))


def undisturbed(blocks: Sequence[Block]) -> list[float]:
    """Return for each block the seconds of an undisturbed run."""
    return [float(np.quantile(block.own_seconds, _UNDISTURBED)) for block in blocks]
