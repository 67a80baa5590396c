"""The one test of whether scores of classes are probabilities already, or logits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: How far the sum of a row may be from 1: softmax in half precision stays below this.
_SUM_TOLERANCE: Final = 1e-3

#: Half a step of an int8 output whose range is -1..1; symmetric quantization rounds by up to this.
INT8_ROUNDING: Final = 1 / 254


def are_probabilities(scores: NDArray[Any], *, rounding: float = 0.0) -> bool:
    """Whether scores [rows, …, classes] are probabilities: none outside 0..1, and those of a row sum to 1.

    Scores of one column are the probability of the second of two classes; they have no sum. Rows with NaN or infinity
    are left out; without any other row the answer is False. rounding: by which each score may be off.
    """
    numbers = scores.astype(np.float64).reshape(-1, scores.shape[-1])
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    if not numbers.size or numbers.min() < -rounding or numbers.max() > 1 + _SUM_TOLERANCE + rounding:
        return False
    classes = numbers.shape[1]
    gap = np.abs(numbers.sum(axis=1) - 1).max()
    return classes == 1 or bool(gap < _SUM_TOLERANCE + classes * rounding)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of logits [rows, classes]; rows with NaN or infinity become NaN."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result
