"""Comparison of a row's answer in a batch with its answer alone, and the tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.package.agreement import TOLERANCES
from headrace.contracts.tensors.datatypes import DTYPES

Array = NDArray[Any]

#: The scale of a row's answer counts, and this part of what is usual among all rows: a value near zero is what is left
#: of large ones.
_USUAL_PART: Final = 0.1

#: How many times the effect of a rounding of its inputs a row's answer may change beside others.
_ROUNDINGS: Final = 10.0


def scale_of(value: Array) -> float:
    """Return the largest finite magnitude in an array; 0.0 when there is none."""
    numbers = _numbers(value)
    if numbers is None:
        return 0.0
    finite = np.abs(numbers[np.isfinite(numbers)])
    return float(finite.max()) if finite.size else 0.0


def usual_scale(values: Iterable[Array]) -> float:
    """Return the median of the scales of the rows' answers."""
    scales = [scale_of(value) for value in values]
    return float(np.median(scales)) if scales else 0.0


def tolerance(alone: Array, usual: float, noise: float = 0.0) -> float:
    """Return by how much an answer may differ.

    usual: scale of the answers of all rows. noise: by how much a rounding of the row's inputs changes its answer.
    """
    share = next((part for name, part in TOLERANCES.items() if alone.dtype == DTYPES[name]), 0.0)
    return share * (scale_of(alone) + _USUAL_PART * usual) + _ROUNDINGS * noise


def difference(alone: Array, beside: Array) -> float:
    """Return the largest difference of two answers.

    NaN equals NaN. Infinity when shapes differ, when texts differ, or where only one of the two is a finite number.
    """
    if alone.shape != beside.shape or alone.dtype != beside.dtype:
        return math.inf
    if alone.dtype.kind == "O":
        return 0.0 if alone.tolist() == beside.tolist() else math.inf
    left, right = _numbers(alone), _numbers(beside)
    assert left is not None
    assert right is not None
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if same.all():
        return 0.0
    left, right = left[~same], right[~same]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(left - right)
    return float(apart.max()) if np.isfinite(left).all() and np.isfinite(right).all() else math.inf


def _numbers(value: Array) -> Array | None:
    if value.dtype.kind == "O":
        return None
    if value.dtype.kind in "fV" or value.dtype == DTYPES["BF16"]:
        return value.astype(np.float64)
    # Whole numbers of 64 bits are no floats of as many: only equal ones must look equal.
    return value.astype(np.float64) if value.dtype.itemsize < 8 else value.astype(np.longdouble)
