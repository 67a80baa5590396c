"""Confidence intervals by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

A resample of n rows, drawn with replacement, is the number of times that each row was drawn: a row of weights. A
statistic computes its value for many such rows at once; statistics of two models under the same weights are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Weights [resamples, rows] → value of each resample [resamples], NaN where it has none.
Statistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Enough for the ends of a 95 % interval to be stable to a tenth of its width.
RESAMPLES: Final = 1000

#: The share of resamples that the interval holds.
CONFIDENCE: Final = 0.95

#: Weights held at a time: 2 million FP64 are 16 MB, and a few such arrays live at once.
_WEIGHTS_AT_A_TIME: Final = 2_000_000


def resample(
    statistics: Sequence[Statistic], rows: int, *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Return every statistic of every resample, under the same draws: [resamples, statistics]."""
    parts = [
        np.stack([statistic(weights) for statistic in statistics], axis=1)
        for weights in _weights(rows, seed, resamples)
    ]
    return np.concatenate(parts)


def _weights(rows: int, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // rows)
    for first in range(0, resamples, at_a_time):
        count = min(at_a_time, resamples - first)
        drawn = random.integers(0, rows, (count, rows))
        drawn += np.arange(count)[:, None] * rows
        yield np.bincount(drawn.reshape(-1), minlength=count * rows).reshape(count, rows).astype(np.float64)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the middle 95 % of the values, leaving out NaN; NaN when there is nothing else."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
