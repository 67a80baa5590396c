"""Columns of NumPy arrays: rows of an array become values of an Arrow column, without a copy where that can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.sources.base import bytes_column


def arrow_type(dtype: np.dtype[Any], shape: tuple[int, ...]) -> pa.DataType:
    """Return the type of a column. shape: of one row. Raises ValueError when Arrow has no such type."""
    if dtype.kind not in "biufSUMm" or (dtype.itemsize > 8 and dtype.kind == "f"):
        raise ValueError(f"arrays of {dtype} can't be read; convert them to numbers or strings")
    kind = pa.binary() if dtype.kind == "S" else pa.from_numpy_dtype(np.dtype(str) if dtype.kind == "U" else dtype)
    for size in reversed(shape):
        kind = pa.list_(kind, size)
    return kind


def arrow_column(rows: NDArray[Any]) -> pa.Array:
    """Return rows as a column; each row is a value, or a list of fixed size for each axis behind the first."""
    flat = np.ascontiguousarray(rows.reshape(-1))
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    column = _flat_column(flat)
    for axis in range(rows.ndim - 1, 0, -1):
        column = pa.FixedSizeListArray.from_arrays(column, rows.shape[axis])
    return column


def _flat_column(values: NDArray[Any]) -> pa.Array:
    """Return a column of numbers, bytes or strings. `pyarrow.array` would end strings at their first zero."""
    if values.dtype.kind == "S":
        return bytes_column(values.tolist(), pa.binary())
    if values.dtype.kind == "U":
        return bytes_column([text.encode() for text in values.tolist()], pa.string())
    if values.dtype.kind in "iuf":
        return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
    return pa.array(values)
