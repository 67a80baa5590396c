"""Rows that only fill up a run, for models that ask for fixed sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pad_rows(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """Lengthen an array to `rows` rows by repeating its last row; the same array if it has them already.

    array: rows first, at least one row; any datatype. A copy of real data is valid input for every model, which
    zeros are not (division by a length, BYTES). The caller drops the outputs of the added rows.
    Raises ValueError if the array has no rows, or more than `rows`.
    """
    have = array.shape[0]
    if have == rows:
        return array
    if not 0 < have < rows:
        raise ValueError(f"{have} rows can't be padded to {rows}")
    padded = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
    padded[:have] = array
    padded[have:] = array[-1]
    return padded
