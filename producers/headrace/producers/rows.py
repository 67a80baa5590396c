"""Bodies of single-row requests, cut out of arrays of many rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.datatypes import DTYPES, datatype_of
from headrace.contracts.message import json_body
from headrace.contracts.tensors import Tensors, encode_tensors

#: msgpack writes the size of a map up to this one into its first byte.
_FIXMAP_MAX: Final = 15
_FIXMAP: Final = 0x80


def tensor_bodies(arrays: Tensors, start: int, stop: int) -> Iterator[bytes]:
    """Give the bodies of the requests that hold one row each, `encode_tensors` of every row from start to stop."""
    fixed = len(arrays) <= _FIXMAP_MAX and all(has_fixed_size(array) for array in arrays.values())
    if not fixed:
        for row in range(start, stop):
            yield encode_tensors({name: array[row : row + 1] for name, array in arrays.items()})
        return
    # Rows of one array differ in their raw bytes only, which come last in an entry: all else is encoded once.
    head = bytes([_FIXMAP | len(arrays)])
    parts = [_entries(name, array[start:stop]) for name, array in arrays.items()]
    if len(parts) == 1:
        for entry in parts[0]:
            yield head + entry
        return
    for entries in zip(*parts, strict=True):
        yield head + b"".join(entries)


def json_bodies(values: dict[str, Any], start: int, stop: int) -> Iterator[bytes]:
    """Give the JSON bodies of the requests that hold one row each, from start to stop."""
    for row in range(start, stop):
        yield json_body({name: value[row : row + 1] for name, value in values.items()})


def has_fixed_size(array: NDArray[Any]) -> bool:
    """Say whether every row of an array has as many bytes as the others, so that no row is larger on the wire."""
    return datatype_of(array.dtype) != "BYTES"


def _entries(name: str, array: NDArray[Any]) -> Iterator[bytes]:
    """Give the msgpack entry `name: (datatype, shape, bytes)` of each row."""
    raw = np.ascontiguousarray(array, dtype=DTYPES[datatype_of(array.dtype)]).tobytes()
    size = len(raw) // len(array)
    first = encode_tensors({name: array[:1]})[1:]
    head = first[: len(first) - size]
    return (head + raw[at : at + size] for at in range(0, len(raw), size)) if size else iter([head] * len(array))
