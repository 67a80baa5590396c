"""Answers that count as the same."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import DTypeLike

from headrace.lifecycle.packages.trial.comparison import difference, scale_of, tolerance


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_nan_equals_nan_and_infinity_itself() -> None:
    assert difference(floats(1, math.nan, math.inf), floats(1, math.nan, math.inf)) == 0


@pytest.mark.parametrize("other", [floats(1, 2), floats(math.nan), floats(math.inf), np.ones((1, 1), np.float32)])
def test_another_shape_or_a_value_that_is_no_number_is_infinitely_far(other: np.ndarray) -> None:
    assert difference(floats(1), other) == math.inf


def test_numbers_differ_by_their_largest_distance() -> None:
    assert difference(floats(1, 2, 3), floats(1, 2.5, 2.75)) == pytest.approx(0.5)


def test_whole_numbers_of_64_bits_are_told_apart() -> None:
    assert difference(np.array([2**62]), np.array([2**62 + 1])) > 0


def test_texts_are_equal_or_not() -> None:
    one, other = np.array([b"a"], object), np.array([b"b"], object)
    assert difference(one, one.copy()) == 0
    assert difference(one, other) == math.inf


def test_whole_numbers_and_texts_have_no_tolerance() -> None:
    assert tolerance(np.array([5]), 5.0) == 0
    assert tolerance(np.array([b"a"], object), 0.0) == 0


@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(np.float64, 1e-13), (np.float32, 1e-5), (np.float16, 5e-3), (ml_dtypes.bfloat16, 3e-2)],
)
def test_a_row_may_differ_by_roundings_of_its_own_size_but_not_by_a_tenth(dtype: DTypeLike, rounding: float) -> None:
    row = np.array([100.0, 1.0]).astype(dtype)
    assert 100 * rounding < tolerance(row, 0.0) < 10


def test_rows_of_ordinary_size_widen_the_tolerance_of_one_near_zero_a_little() -> None:
    assert 0 < tolerance(floats(0), 1.0) < tolerance(floats(1), 0.0)


def test_the_scale_is_that_of_the_finite_values() -> None:
    assert scale_of(floats(-3, math.inf, math.nan)) == 3
    assert scale_of(floats(math.nan)) == 0
