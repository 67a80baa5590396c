"""The ratio of two models' speeds, by pairs of neighbouring blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

#: Resamples of the bootstrap; with more, the ends of the interval no longer move by what could be seen.
_RESAMPLES: Final = 2000

#: Of the interval.
_CONFIDENCE: Final = 0.95


class Ratio(msgspec.Struct, frozen=True):
    """Seconds of the baseline over those of the candidate: above 1 the candidate is faster.

    low, high: ends of the 95 % interval. pairs: of blocks that it was measured by.
    """

    median: float
    low: float
    high: float
    pairs: int


def ratio_of(baseline: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Compare two models by the seconds of their blocks, each pair of which was run one after the other.

    The median over the pairs, so that a block which something else disturbed doesn't count, with the interval of the
    percentile bootstrap (Efron 1979). The resamples are the same for the same number of pairs.
    """
    ratios = np.asarray(baseline, dtype=float) / np.asarray(candidate, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(np.median(ratios[picks], axis=1), [tail, 1 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
