"""Messages written around buffers instead of copies of them, and packed numbers read as such.

protobuf's own way copies each tensor three times: into bytes, into the message, into the serialized message. A message
is the concatenation of its fields, so that the large ones can be put beside what protobuf serializes.
Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from headrace.contracts.tensors.raw import MalformedTensor
from headrace.runtimes.remote.base import BadAnswer

#: Serialized fields: joined only once, when all are there.
Parts: TypeAlias = list[bytes | memoryview]

_LENGTH_DELIMITED: Final = 2

_Message = TypeVar("_Message", bound=Message)


def field(number: int, parts: Sequence[bytes | memoryview]) -> Parts:
    """Return a field of type string, bytes, message or packed numbers."""
    size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(size), *parts]


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def serialized(message: Message) -> bytes:
    """Return a message as bytes."""
    written: bytes = message.SerializeToString()
    return written


def parsed(kind: type[_Message], received: bytes) -> _Message:
    """Return the message in an answer. Raises BadAnswer."""
    try:
        return kind.FromString(received)
    except DecodeError:
        raise BadAnswer(f"the server's answer is no {kind.__name__}") from None


def fixed_numbers(message: Message, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a repeated field of float, double or bool, without a Python object for each number.

    dtype: that of the field on the wire, all numbers of which have one width there.
    """
    numbers = getattr(message, name)
    alone = type(message)()
    getattr(alone, name).MergeFrom(numbers)
    written = serialized(alone)
    return np.frombuffer(written, dtype, len(numbers), len(written) - len(numbers) * dtype.itemsize)


def narrowed(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return whole numbers of a tensor in its own datatype. Raises MalformedTensor for those outside of it."""
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise MalformedTensor("has values outside its own datatype")
    return values.astype(dtype, copy=False)
