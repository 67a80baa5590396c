"""Bodies of single-row requests, cut out of arrays of many rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.message import json_body
from headrace.contracts.tensors.codec import MAX_SHORT_MAP, Tensors, encode_entry, encode_tensors, map_head
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of

#: For each named value the dimension that holds its rows; None if every request holds the whole value.
Axes: TypeAlias = Mapping[str, int | None]


def tensor_bodies(arrays: Tensors, axes: Axes, start: int, stop: int) -> Iterator[bytes]:
    """Return the bodies of the requests that hold one row each, `encode_tensors` of every row from start to stop."""
    varying = any(axes[name] is not None and not has_fixed_size(array) for name, array in arrays.items())
    if varying or len(arrays) > MAX_SHORT_MAP:
        for row in range(start, stop):
            yield encode_tensors({name: _row(array, axes[name], row) for name, array in arrays.items()})
        return
    # Rows of one array differ in their raw bytes only, which come last in an entry: all else is encoded once.
    head = map_head(len(arrays))
    parts = [_entries(name, array, axes[name], start, stop) for name, array in arrays.items()]
    if len(parts) == 1:
        for entry in parts[0]:
            yield head + entry
        return
    for entries in zip(*parts, strict=True):
        yield head + b"".join(entries)


def json_bodies(values: dict[str, Any], axes: Axes, start: int, stop: int) -> Iterator[bytes]:
    """Return the JSON bodies of the requests that hold one row each, from start to stop; rows are first, or absent."""
    for row in range(start, stop):
        yield json_body({
            name: value if axes[name] is None else value[row : row + 1] for name, value in values.items()
        })  # fmt: skip


def has_fixed_size(array: NDArray[Any]) -> bool:
    """Return whether every row of an array has as many bytes as the others, so that no row is larger on the wire."""
    return datatype_of(array.dtype) != "BYTES"


def row_bytes(arrays: Tensors, axes: Axes, rows: int) -> float:
    """Return how many bytes of arrays a request of one row holds."""
    return sum(array.nbytes / (1 if axes[name] is None else rows) for name, array in arrays.items())


def _row(array: NDArray[Any], axis: int | None, row: int) -> NDArray[Any]:
    if axis is None:
        return array
    return array[(slice(None),) * axis + (slice(row, row + 1),)]


def _entries(name: str, array: NDArray[Any], axis: int | None, start: int, stop: int) -> Iterator[bytes]:
    """Return the msgpack entry `name: (datatype, shape, bytes)` of each row."""
    first = encode_entry(name, _row(array, axis, start))
    if axis is None:
        return repeat(first, stop - start)
    rows = np.moveaxis(array, axis, 0)[start:stop] if axis else array[start:stop]
    raw = np.ascontiguousarray(rows, dtype=DTYPES[datatype_of(array.dtype)]).tobytes()
    size = len(raw) // len(rows)
    head = first[: len(first) - size]
    return (head + raw[at : at + size] for at in range(0, len(raw), size)) if size else repeat(head, len(rows))
