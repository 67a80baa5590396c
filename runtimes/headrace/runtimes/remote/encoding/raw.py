"""Tensors as raw little-endian bytes: binary tensors over HTTP, `raw_input_contents` over gRPC.

Row-major, without padding; BOOL takes a byte, an element of BYTES a 4-byte length and its bytes. Source: the binary
tensor data extension of the Open Inference Protocol.
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
from headrace.runtimes.remote.base import BadAnswer

Buffer: TypeAlias = bytes | bytearray | memoryview

_LENGTH_BYTES: Final = 4


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


def unpack(data: Buffer, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return the array of an answer's bytes, a view of them where that is possible. Raises BadAnswer."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise BadAnswer(f"the server's output {quoted(name)} has the unknown datatype {quoted(datatype)}")
    count = element_count(shape, name)
    view = memoryview(data)
    if datatype == "BYTES":
        return _unpack_bytes(view, count, name).reshape(shape)
    if view.nbytes != count * dtype.itemsize:
        raise BadAnswer(
            f"the server's output {quoted(name)} carries {view.nbytes} bytes, but {datatype} of shape {list(shape)} "
            f"needs {count * dtype.itemsize}"
        )
    array = np.frombuffer(view, dtype)
    if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
        raise BadAnswer(f"the server's output {quoted(name)} holds bytes other than 0 and 1, which no BOOL tensor does")
    # Tensors follow each other without padding, so one may start at an odd address.
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def element_count(shape: Sequence[int], name: str) -> int:
    """Return how many elements a shape in an answer stands for. Raises BadAnswer for an impossible one."""
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0 or max(shape, default=0) > np.iinfo(np.int64).max:
        raise BadAnswer(f"the server's output {quoted(name)} has the impossible shape {quoted(list(shape))}")
    count = math.prod(shape)
    # With a size of 0 in it, a shape of any other sizes holds no element, but numpy multiplies those sizes.
    if math.prod(size for size in shape if size) > np.iinfo(np.int64).max // 8:
        raise BadAnswer(f"the server's output {quoted(name)} has the impossible shape {quoted(list(shape))}")
    return count


def _unpack_bytes(data: memoryview, count: int, name: str) -> NDArray[Any]:
    if count * _LENGTH_BYTES > data.nbytes:
        raise BadAnswer(f"the server's output {quoted(name)} has {count} elements in {data.nbytes} bytes")
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > data.nbytes:
            raise BadAnswer(f"the server's output {quoted(name)} is cut off in element {index}")
        array[index] = bytes(data[start:at])
    if at != data.nbytes:
        raise BadAnswer(f"the server's output {quoted(name)} carries {data.nbytes - at} bytes too many")
    return array
