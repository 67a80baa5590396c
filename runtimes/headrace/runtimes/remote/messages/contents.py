"""Values of tensors one by one, as `InferTensorContents` of the Open Inference Protocol, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.contracts.tensors.raw import MalformedTensor, element_count, pack
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.wire import Parts, field, fixed_numbers, narrowed, serialized

#: OIP v2 name → field of InferTensorContents. Half-width floats have none; servers that answer so write them as FP32.
_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP16": "fp32_contents",
    "BF16": "fp32_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

#: Fields whose numbers have one width on the wire → their number and that width.
_FIXED_WIDTH: Final = {
    "bool_contents": (1, np.dtype(np.bool_)),
    "fp32_contents": (6, np.dtype("<f4")),
    "fp64_contents": (7, np.dtype("<f8")),
}
_WHOLE: Final[dict[str, np.dtype[Any]]] = {
    "int_contents": np.dtype("i4"),
    "int64_contents": np.dtype("i8"),
    "uint_contents": np.dtype("u4"),
    "uint64_contents": np.dtype("u8"),
}


def write_contents(array: NDArray[Any], datatype: str) -> Parts:
    """Return an `InferTensorContents`. datatype: of the array, neither FP16 nor BF16, which have no field."""
    where = _FIELDS[datatype]
    if where in _FIXED_WIDTH:
        return field(_FIXED_WIDTH[where][0], [pack(array)]) if array.size else []
    values = array.reshape(-1).tolist()
    if datatype == "BYTES":
        values = [value.encode() if isinstance(value, str) else value for value in values]
    contents = oip.InferTensorContents()
    getattr(contents, where).extend(values)
    return [serialized(contents)]


def read_contents(contents: oip.InferTensorContents, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    """Return the array of an `InferTensorContents`. Raises MalformedTensor."""
    count = element_count(shape)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise MalformedTensor(f"has the unknown datatype {quoted(datatype)}")
    where = _FIELDS[datatype]
    written = getattr(contents, where)
    if len(written) != count:
        raise MalformedTensor(f"of shape {list(shape)} has {len(written)} values in {where}, and needs {count}")
    if where in _FIXED_WIDTH:
        values = fixed_numbers(contents, where, _FIXED_WIDTH[where][1]).astype(dtype, copy=False)
    elif where in _WHOLE:
        values = narrowed(np.array(written, _WHOLE[where]), dtype)
    else:
        values = np.empty(count, dtype)
        values[:] = list(written)
    return values.reshape(shape)
