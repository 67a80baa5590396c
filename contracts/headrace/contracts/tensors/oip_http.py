"""The Open Inference Protocol over HTTP, as far as both of its ends share it: flat JSON, and the bytes behind it.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md), and Triton's extension_binary_data.md.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors import python_json
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.contracts.tensors.raw import MalformedTensor

#: Header with the length of the JSON part, where binary tensors follow it.
JSON_LENGTH: Final = "Inference-Header-Content-Length"

#: What the protocol has no JSON form for.
BINARY_ONLY: Final = frozenset({"FP16", "BF16"})

#: Digits of a length; more are none that a body could have.
_MOST_DIGITS: Final = 18


def json_part(body_bytes: int, json_length: str | None) -> int:
    """Return how many bytes of a body are JSON; all of them without the header JSON_LENGTH.

    Raises MalformedTensor for a length that the body does not have, its text that of `json_length`.
    """
    if json_length is None:
        return body_bytes
    digits = json_length.strip()
    length = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else -1
    if not 0 <= length <= body_bytes:
        raise MalformedTensor(f"has {body_bytes} bytes, but its JSON part {quoted(json_length)}")
    return length


def take(binary: memoryview, at: int, size: object) -> memoryview:
    """Return the bytes of one tensor behind the JSON. Raises MalformedTensor for a size that is none of them."""
    if type(size) is not int or not 0 <= size <= binary.nbytes - at:
        raise MalformedTensor(f"has {quoted(size)} bytes, but {binary.nbytes - at} came")
    return binary[at : at + size]


def flat_json(array: NDArray[Any]) -> bytes:
    """Return an array as one list: text for BYTES, literals as of `python_json` for NaN and infinity.

    Raises MalformedTensor for bytes that are no text.
    """
    if datatype_of(array.dtype) != "BYTES":
        return python_json.encode_array(native(array).reshape(-1))
    try:
        texts = [item if isinstance(item, str) else item.decode() for item in array.reshape(-1).tolist()]
    except UnicodeDecodeError:
        raise MalformedTensor("holds bytes that are no UTF-8 text, which JSON can't carry") from None
    return msgspec.json.encode(texts)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of numbers as the encoder of JSON takes it: contiguous, in native byte order, no 16-bit float."""
    if array.dtype.kind == "V" or (array.dtype.kind == "f" and array.dtype.itemsize == 2):
        # Exact, and known to the encoder.
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            array = array.astype(np.float32)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
