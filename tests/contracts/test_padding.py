"""Padding to fixed sizes."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.contracts.padding import pad_rows


@pytest.mark.parametrize("datatype", ["f4", "i8", "?", "f2"])
def test_added_rows_repeat_the_last_one(datatype: str) -> None:
    array = np.arange(6).reshape(3, 2).astype(datatype)
    padded = pad_rows(array, 5)
    assert padded.dtype == array.dtype
    assert padded.tolist() == [*array.tolist(), array[-1].tolist(), array[-1].tolist()]


def test_bytes_stay_bytes() -> None:
    array = np.array([b"one", b"two"], dtype=object)
    assert pad_rows(array, 3).tolist() == [b"one", b"two", b"two"]


def test_an_array_that_fits_is_not_copied() -> None:
    array = np.zeros((4, 2))
    assert pad_rows(array, 4) is array


@pytest.mark.parametrize("shape", [(5, 2), (0, 2)])
def test_what_cannot_be_padded_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="padded"):
        pad_rows(np.zeros(shape), 4)
