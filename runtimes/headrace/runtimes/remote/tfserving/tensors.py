"""Arrays as TensorFlow's TensorProto, and back: `tensor_content` out, either of its two forms in."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.encoding.raw import answer_blamed, element_count, pack, unpack
from headrace.runtimes.remote.messages import tfserving
from headrace.runtimes.remote.messages.wire import Parts, field, fixed_numbers, narrowed

#: Name of `tensorflow.DataType` → OIP v2 name.
DATATYPES: Final = {
    "DT_BOOL": "BOOL",
    "DT_UINT8": "UINT8",
    "DT_UINT16": "UINT16",
    "DT_UINT32": "UINT32",
    "DT_UINT64": "UINT64",
    "DT_INT8": "INT8",
    "DT_INT16": "INT16",
    "DT_INT32": "INT32",
    "DT_INT64": "INT64",
    "DT_HALF": "FP16",
    "DT_FLOAT": "FP32",
    "DT_DOUBLE": "FP64",
    "DT_BFLOAT16": "BF16",
    "DT_STRING": "BYTES",
}
_NAMES: Final = {number: name for name, number in tfserving.DATA_TYPES.items()}
_NUMBERS: Final = {datatype: tfserving.DATA_TYPES[name] for name, datatype in DATATYPES.items()}

#: OIP v2 name → field of the values that stand one by one, if `tensor_content` is empty.
_FIELDS: Final = {
    "BOOL": "bool_val",
    "UINT8": "int_val",
    "UINT16": "int_val",
    "UINT32": "uint32_val",
    "UINT64": "uint64_val",
    "INT8": "int_val",
    "INT16": "int_val",
    "INT32": "int_val",
    "INT64": "int64_val",
    "FP16": "half_val",
    "FP32": "float_val",
    "FP64": "double_val",
    "BF16": "half_val",
    "BYTES": "string_val",
}
_FIXED_WIDTH: Final = frozenset({"bool_val", "float_val", "double_val"})
_TENSOR_CONTENT: Final = 4


def name_of(dtype: int) -> str:
    """Return the OIP v2 name of a `tensorflow.DataType`, or TensorFlow's name if OIP v2 has none."""
    name = _NAMES.get(dtype, f"datatype {dtype}")
    return DATATYPES.get(name, name)


def write_tensor(array: NDArray[Any]) -> Parts:
    """Return a serialized TensorProto around the memory of an array; BYTES go one by one."""
    datatype = datatype_of(array.dtype)
    dims = [tfserving.TensorShapeProto.Dim(size=size) for size in array.shape]
    head = tfserving.TensorProto(dtype=_NUMBERS[datatype], tensor_shape=tfserving.TensorShapeProto(dim=dims))
    if datatype != "BYTES":
        return [head.SerializeToString(), *field(_TENSOR_CONTENT, [pack(array)])]
    head.string_val.extend(item.encode() if isinstance(item, str) else item for item in array.reshape(-1).tolist())
    return [head.SerializeToString()]


def read_tensor(tensor: tfserving.TensorProto, name: str) -> NDArray[Any]:
    """Return the array of a tensor in an answer. Raises BadAnswer."""
    datatype = name_of(tensor.dtype)
    if datatype not in DTYPES:
        raise BadAnswer(f"the server's output {quoted(name)} is {datatype}, which headrace has not")
    if tensor.tensor_shape.unknown_rank:
        raise BadAnswer(f"the server's output {quoted(name)} has no shape")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    count = element_count(shape, name)
    if tensor.tensor_content and datatype == "BYTES":
        return _strings(_split(tensor.tensor_content, count, name)).reshape(shape)
    if tensor.tensor_content or count == 0:
        return unpack(tensor.tensor_content, datatype, shape, name)
    values = _values(tensor, datatype, name)
    if values.size == 1 and count > 1:
        # TensorFlow writes a tensor of equal values as one of them. Until its shape is checked it takes no memory.
        return np.broadcast_to(values, shape)
    if values.size != count:
        raise BadAnswer(f"the server's output {quoted(name)} of shape {list(shape)} has {values.size} values")
    return values.reshape(shape)


def _values(tensor: tfserving.TensorProto, datatype: str, name: str) -> NDArray[Any]:
    where = _FIELDS[datatype]
    dtype = DTYPES[datatype]
    if where in _FIXED_WIDTH:
        return fixed_numbers(tensor, where, dtype)
    if datatype == "BYTES":
        return _strings(list(tensor.string_val))
    with answer_blamed(name):
        if where == "half_val":
            # The bits of a number in the lower half of an int32.
            return narrowed(np.array(tensor.half_val, np.int64), np.dtype("<u2")).view(dtype)
        wide = np.uint64 if dtype.kind == "u" else np.int64
        return narrowed(np.array(getattr(tensor, where), np.int64 if where == "int_val" else wide), dtype)


def _strings(elements: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _split(content: bytes, count: int, name: str) -> list[bytes]:
    """Return the strings of a `tensor_content`: all lengths as varints, then all bytes (tensorflow/core/lib/coding)."""
    cut_off = BadAnswer(f"the server's output {quoted(name)} of {count} strings doesn't fit its {len(content)} bytes")
    lengths: list[int] = []
    at = length = shift = 0
    while len(lengths) < count:
        if at == len(content) or shift > 28:
            raise cut_off
        length |= (content[at] & 0x7F) << shift
        shift += 7
        if content[at] < 0x80:
            lengths.append(length)
            length = shift = 0
        at += 1
    if sum(lengths) != len(content) - at:
        raise cut_off
    ends = np.cumsum([at, *lengths]).tolist()
    return [content[start:end] for start, end in itertools.pairwise(ends)]
