"""Tensors as JSON: nested lists, NaN and infinity as bare tokens, binary text as base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from numpy.typing import NDArray

from headrace.contracts.errors import SignatureMismatch, quoted
from headrace.contracts.tensors import python_json
from headrace.contracts.tensors.codec import as_array
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.contracts.tensors.oip_http import flat_json, native
from headrace.contracts.tensors.raw import MalformedTensor
from headrace.runtimes.remote.base import BadAnswer, Refused
from headrace.runtimes.remote.encoding.raw import Buffer

JsonElement: TypeAlias = str | dict[str, str]


def as_base64(element: bytes | str) -> JsonElement:
    """Return an element of BYTES as TensorFlow Serving takes it, whatever bytes it holds."""
    raw = element.encode() if isinstance(element, str) else element
    return {"b64": base64.b64encode(raw).decode()}


def as_text(element: bytes | str) -> JsonElement:
    """Return an element of BYTES as a string, or as base64 if it is no text."""
    try:
        return element if isinstance(element, str) else element.decode()
    except UnicodeDecodeError:
        return as_base64(element)


def write_values(array: NDArray[Any], element: Callable[[bytes | str], JsonElement] = as_base64) -> bytes:
    """Return an array as nested lists. element: how those of BYTES are written."""
    if datatype_of(array.dtype) == "BYTES":
        return msgspec.json.encode(_each(array.tolist(), element))
    # The encoder takes no array without dimensions; such a value is the only one of a list.
    return python_json.encode_array(native(array)) if array.ndim else write_values(array.reshape(1))[1:-1]


def write_flat(array: NDArray[Any], name: str) -> bytes:
    """Return an array as one list; BYTES as text. Raises Refused for bytes that are no text."""
    try:
        return flat_json(array)
    except MalformedTensor:
        raise Refused(
            f"input {quoted(name)} holds bytes that are no UTF-8 text, and the server takes JSON alone; "
            "reach it over gRPC"
        ) from None


def read_values(value: object, datatype: str, name: str) -> NDArray[Any]:
    """Return the array of nested lists in an answer. Raises BadAnswer."""
    if datatype not in DTYPES:
        raise BadAnswer(f"the server's output {quoted(name)} has the unknown datatype {quoted(datatype)}")
    try:
        return as_array(_each(value, _as_bytes) if datatype == "BYTES" else value, datatype, name)
    except (SignatureMismatch, binascii.Error, UnicodeEncodeError, RecursionError) as exc:
        words = str(exc).removeprefix(f"input {quoted(name)} ")
        hint = "; some servers write NaN and infinity as null: reach this one over gRPC" if "NoneType" in words else ""
        raise BadAnswer(f"the server's output {quoted(name)} is no {datatype} tensor: it {words}{hint}") from None


def read_document(body: Buffer) -> Any:
    """Return the JSON of an answer. Raises BadAnswer."""
    try:
        return python_json.decode(memoryview(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        start = bytes(body[:200]).decode(errors="replace")
        raise BadAnswer(f"the server's answer is no JSON ({exc}); it begins with {quoted(start)}") from None


def _each(value: Any, convert: Callable[[Any], object]) -> Any:
    if isinstance(value, list):
        return [_each(item, convert) for item in value]
    return convert(value)


def _as_bytes(element: object) -> object:
    if isinstance(element, dict) and element.keys() == {"b64"} and isinstance(element["b64"], str):
        return base64.b64decode(element["b64"], validate=True)
    return element
