"""Tensors as raw little-endian bytes, as the Open Inference Protocol sends them over HTTP and gRPC.

Row-major, without padding; BOOL takes a byte, an element of BYTES a 4-byte length and its bytes. Source: the binary
tensor data extension of the Open Inference Protocol, and its `raw_input_contents`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import MAX_DIMENSIONS
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of

Buffer: TypeAlias = bytes | bytearray | memoryview

_LENGTH_BYTES: Final = 4

_LARGEST_SIZE: Final = np.iinfo(np.int64).max


class MalformedTensor(ValueError):
    """A tensor that can't be read or written. Its text goes on where a sentence has named the tensor: "carries …"."""


def pack(array: NDArray[Any]) -> bytes | memoryview:
    """Return the bytes of an array that the model's signature has checked; a view of them where that is possible."""
    datatype = datatype_of(array.dtype)
    if datatype != "BYTES":
        return np.ascontiguousarray(array, dtype=DTYPES[datatype]).reshape(-1).view(np.uint8).data
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        raw = element.encode() if isinstance(element, str) else element
        parts += (len(raw).to_bytes(_LENGTH_BYTES, "little"), raw)
    return b"".join(parts)


def unpack(data: Buffer, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return the array of raw bytes, a view of them where that is possible. Raises MalformedTensor."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise MalformedTensor(f"has the unknown datatype {quoted(datatype)}")
    count = element_count(shape)
    view = memoryview(data)
    if datatype == "BYTES":
        return _unpack_bytes(view, count).reshape(shape)
    if view.nbytes != count * dtype.itemsize:
        raise MalformedTensor(
            f"carries {view.nbytes} bytes, but {datatype} of shape {list(shape)} needs {count * dtype.itemsize}"
        )
    array = np.frombuffer(view, dtype)
    if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
        raise MalformedTensor("holds bytes other than 0 and 1, which no BOOL tensor does")
    # Tensors follow each other without padding, so one may start at an odd address.
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def element_count(shape: Sequence[int]) -> int:
    """Return how many elements a shape stands for. Raises MalformedTensor for an impossible one."""
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0 or max(shape, default=0) > _LARGEST_SIZE:
        raise MalformedTensor(f"has the impossible shape {quoted(list(shape))}")
    # With a size of 0 in it, a shape of any other sizes holds no element, but numpy multiplies those sizes.
    if math.prod(size for size in shape if size) > _LARGEST_SIZE // 8:
        raise MalformedTensor(f"has the impossible shape {quoted(list(shape))}")
    return math.prod(shape)


def _unpack_bytes(data: memoryview, count: int) -> NDArray[Any]:
    if count * _LENGTH_BYTES > data.nbytes:
        raise MalformedTensor(f"has {count} elements in {data.nbytes} bytes")
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if start > data.nbytes or at > data.nbytes:
            raise MalformedTensor(f"is cut off in element {index}")
        array[index] = bytes(data[start:at])
    if at != data.nbytes:
        raise MalformedTensor(f"carries {data.nbytes - at} bytes too many")
    return array
