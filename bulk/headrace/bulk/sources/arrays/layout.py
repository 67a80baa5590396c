"""The layout of a `.npy` file: its header, and where each row is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from headrace.bulk.sources.arrays.columns import arrow_type

#: Bytes of rows that are read at once.
BLOCK_BYTES: Final = 4 << 20

#: Rows that are read at once, at most.
BLOCK_ROWS: Final = 16_384


class Layout(msgspec.Struct, frozen=True):
    """Rows of an array in a file. start: where the first one is. row_bytes: of each."""

    dtype: np.dtype[Any]
    rows: int
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """How long a row is in the file."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def block_rows(self) -> int:
        """How many rows are read at once."""
        return min(max(BLOCK_BYTES // self.row_bytes, 1), BLOCK_ROWS)


def read_layout(raw: BinaryIO) -> Layout:
    """Read the header. Raises ValueError for an array that has no rows that can be read one after the other."""
    version = npy.read_magic(raw)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(raw)
    if not shape:
        raise ValueError("the array has no axis, so it has no rows")
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, which are not read; save it with a datatype of numbers")
    if is_fortran and sum(size > 1 for size in shape) > 1:
        raise ValueError("the array is in Fortran order; save numpy.ascontiguousarray of it")
    if not dtype.itemsize * math.prod(shape[1:]):
        raise ValueError("the rows of the array have no values")
    arrow_type(dtype, shape[1:])
    return Layout(dtype, shape[0], tuple(shape[1:]), raw.tell())


def read_rows(raw: BinaryIO, layout: Layout, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Yield rows block by block. raw: at the first of them. Raises EOFError when the file ends before."""
    while start < stop:
        count = min(layout.block_rows, stop - start)
        data = raw.read(count * layout.row_bytes)
        if len(data) < count * layout.row_bytes:
            raise EOFError(f"the file ends within row {start + len(data) // layout.row_bytes} of {layout.rows}")
        yield np.frombuffer(data, layout.dtype, count * math.prod(layout.shape)).reshape(count, *layout.shape)
        start += count
