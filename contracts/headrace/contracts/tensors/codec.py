"""Tensors on the wire: name → (datatype, shape, raw little-endian bytes), packed with msgpack.

Content type `application/x-headrace-tensors`. Decoding is zero-copy: arrays are read-only views into
the received buffer. BYTES elements are each a 4-byte little-endian length and their bytes, as in the
binary extension of the Open Inference Protocol v2. Where a tensor holds its rows is up to the model's signature.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from headrace.contracts.errors import InvalidRequest, PayloadTooLarge, SignatureMismatch, quoted
from headrace.contracts.tensors import python_json
from headrace.contracts.tensors.datatypes import DTYPES, all_finite, datatype_of, dtype_of

CONTENT_TYPE: Final = "application/x-headrace-tensors"

#: A dict of named arrays.
Tensors: TypeAlias = dict[str, NDArray[Any]]

#: More than any model has, and what every numpy can hold; more are refused before numpy sees them.
MAX_DIMENSIONS: Final = 32

#: msgpack writes the size of a map up to this one into the first byte of the map.
MAX_SHORT_MAP: Final = 15

#: numpy's kinds of arrays that are BYTES: object, bytes, str and variable-width str.
_TEXT_KINDS: Final = "OSUT"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, tuple[str, tuple[int, ...], memoryview]]).decode

#: What leaves of nested lists may be without a look at each: numpy finds their common type.
_NUMBER_TYPES: Final = frozenset({int, float, bool})


def encode_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack named arrays into bytes; any memory order, any byte order.

    Raises SignatureMismatch for anything but named arrays, PayloadTooLarge for 4 GiB in one array.
    """
    wire = {name: _to_wire(name, array) for name, array in tensors.items()}
    try:
        return _encode(wire)
    except UnicodeEncodeError:
        raise SignatureMismatch("an input's name holds a lone surrogate, which no encoding carries") from None
    except (ValueError, OverflowError) as exc:
        raise PayloadTooLarge(f"an input is too large for one request ({exc}); split it into several") from None


def map_head(entries: int) -> bytes:
    """Return the first byte of `encode_tensors` for at most MAX_SHORT_MAP tensors; their entries follow."""
    return bytes([0x80 | entries])


def encode_entry(name: str, array: NDArray[Any]) -> bytes:
    """Return the entry of one tensor in `encode_tensors`; its raw bytes come last, so rows differ in the end only."""
    return encode_tensors({name: array})[1:]


def _to_wire(name: str, array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes | memoryview]:
    if type(name) is not str or not isinstance(array, np.ndarray):
        raise SignatureMismatch(f"input {quoted(name)} must be a numpy array under a name, not {type(array).__name__}")
    if array.ndim > MAX_DIMENSIONS:
        raise SignatureMismatch(
            f"input {quoted(name)} has {array.ndim} dimensions; at most {MAX_DIMENSIONS} are possible"
        )
    datatype = datatype_of(array.dtype)
    if datatype == "BYTES":
        return datatype, array.shape, _pack_bytes(name, array.reshape(-1).tolist())
    little = np.ascontiguousarray(array, dtype=DTYPES[datatype])
    # tobytes() is faster than a memoryview for the small arrays of single-row requests.
    return datatype, array.shape, little.tobytes()


def decode_tensors(body: bytes | memoryview) -> Tensors:
    """Unpack what `encode_tensors` made; arrays are read-only views into `body`.

    Raises InvalidRequest when the body is truncated, forged or not of this format.
    """
    try:
        wire = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"the body is not {CONTENT_TYPE}: {exc}; encode it with headrace.contracts") from exc
    if len(wire) != _declared_names(body):
        raise InvalidRequest("the body names an input twice; it is forged or was not made by headrace.contracts")
    return {name: _from_wire(name, *parts) for name, parts in wire.items()}


def _declared_names(body: bytes | memoryview) -> int:
    """Return the number of entries that the head of a msgpack map announces."""
    first = body[0]
    if first < 0xDE:
        return first & 0x0F
    return int.from_bytes(body[1:3] if first == 0xDE else body[1:5], "big")


def _from_wire(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> NDArray[Any]:
    dtype = dtype_of(datatype)
    count = _element_count(name, shape)
    if datatype == "BYTES":
        array = _unpack_bytes(name, data, count)
    else:
        if len(data) != count * dtype.itemsize:
            raise InvalidRequest(
                f"input {quoted(name)} carries {len(data)} bytes, but {datatype} of shape {list(shape)} needs "
                f"{count * dtype.itemsize}; the body is truncated or forged"
            )
        array = np.frombuffer(data, dtype)
        if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
            raise InvalidRequest(f"input {quoted(name)} holds bytes other than 0 and 1, which no BOOL tensor does")
    try:
        return array.reshape(shape)
    except ValueError:
        # With a size of 0 in it, a shape of any other sizes holds no element, but numpy multiplies those sizes.
        raise InvalidRequest(f"input {quoted(name)} has the impossible shape {list(shape)}") from None


def _element_count(name: str, shape: tuple[int, ...]) -> int:
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"input {quoted(name)} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are possible")
    if min(shape, default=0) < 0:
        raise InvalidRequest(f"input {quoted(name)} has a negative size in its shape {list(shape)}")
    return math.prod(shape)


def _pack_bytes(name: str, elements: Iterable[Any]) -> bytes:
    parts: list[bytes] = []
    for element in elements:
        raw = _bytes_element(name, element)
        parts.append(len(raw).to_bytes(4, "little"))
        parts.append(raw)
    return b"".join(parts)


def _bytes_element(name: str, element: object) -> bytes:
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError:
            raise SignatureMismatch(f"input {quoted(name)} holds a string with a lone surrogate; mend it") from None
    if not isinstance(element, bytes):
        raise SignatureMismatch(f"input {quoted(name)} must be BYTES (strings), but holds {type(element).__name__}")
    return element


def _unpack_bytes(name: str, data: memoryview, count: int) -> NDArray[Any]:
    if count * 4 > len(data):
        raise InvalidRequest(
            f"input {quoted(name)} is truncated: {count} BYTES elements don't fit into {len(data)} bytes"
        )
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        if at + 4 > len(data):
            raise InvalidRequest(f"input {quoted(name)} is truncated in BYTES element {index}")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise InvalidRequest(f"input {quoted(name)} is truncated in BYTES element {index}")
        array[index] = bytes(data[at : at + size])
        at += size
    if at != len(data):
        raise InvalidRequest(f"input {quoted(name)} carries {len(data) - at} bytes too many")
    return array


def as_array(value: object, datatype: str, name: str = "input") -> NDArray[Any]:
    """Turn nested lists (from JSON, or from Python) into an array of `datatype`.

    Integers may become floats and floats round to the precision of `datatype`; what would change a value
    otherwise (1.5 → INT64, 300 → UINT8, 1e39 → FP32) is refused. Raises SignatureMismatch.
    """
    dtype = dtype_of(datatype)
    if datatype == "BYTES":
        return _bytes_array(value, name)
    raw = _number_array(value, datatype, name)
    if raw.dtype == dtype:
        return raw
    if raw.size == 0:
        return raw.astype(dtype)
    if dtype.kind in "iu" and raw.dtype.kind == "f":
        raw = _whole_numbers(value, raw)
    if raw.dtype.kind not in _CASTS["V" if datatype == "BF16" else dtype.kind]:
        raise SignatureMismatch(f"input {quoted(name)} must be {datatype}, but holds {_describe(raw)}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise SignatureMismatch(
                f"input {quoted(name)} has values outside {datatype} ({limits.min} to {limits.max})"
            )
    with np.errstate(over="ignore"):
        cast = raw.astype(dtype)
    if all_finite(raw) and not all_finite(cast):
        raise SignatureMismatch(f"input {quoted(name)} has values outside {datatype}")
    return cast


#: Kind of a datatype → kinds of numbers that may become it ("V" is BF16).
_CASTS: Final = {"b": "b", "u": "iu", "i": "iu", "f": "iuf", "V": "iuf"}


def _number_array(value: object, datatype: str, name: str) -> NDArray[Any]:
    # numpy gives every element the width of the longest string: one long and many short ones would take all memory.
    if _holds_text(value, MAX_DIMENSIONS):
        raise SignatureMismatch(f"input {quoted(name)} must be {datatype}, but holds text")
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise SignatureMismatch(f"input {quoted(name)} is not a regular array of {datatype}: {exc}") from None


def _holds_text(value: object, depth: int) -> bool:
    if isinstance(value, list | tuple):
        if depth == 0 or _NUMBER_TYPES.issuperset(map(type, value)):
            return False
        return any(_holds_text(element, depth - 1) for element in value)
    return isinstance(value, str | bytes)


def _whole_numbers(value: object, floats: NDArray[Any]) -> NDArray[Any]:
    """Undo what numpy does to lists of integers of which some need 64 unsigned bits: it makes floats of them."""
    if isinstance(value, np.ndarray):
        return floats
    exact = np.array(value, dtype=object)
    flat = exact.reshape(-1).tolist()
    if exact.shape != floats.shape or any(type(element) is not int for element in flat):
        return floats
    return exact if min(flat) < 0 else exact.astype(np.uint64)


def _describe(raw: NDArray[Any]) -> str:
    if raw.dtype.kind == "f" and not all_finite(raw):
        return "NaN or infinity"
    if raw.dtype.kind != "O":
        return f"values of numpy type {raw.dtype}"
    kinds = sorted({type(element).__name__ for element in raw.reshape(-1).tolist()})
    if kinds == ["int"]:
        return "whole numbers of more than 64 bits"
    return f"elements of type {', '.join(kinds[:4])}"


def _bytes_array(value: object, name: str) -> NDArray[Any]:
    try:
        raw = np.asarray(value, dtype=object)
    except (ValueError, TypeError, RecursionError) as exc:
        raise SignatureMismatch(f"input {quoted(name)} is not a regular array of BYTES: {exc}") from None
    elements = raw.reshape(-1).tolist()
    if raw is value and all(type(element) is bytes for element in elements):
        return raw
    flat = np.empty(raw.size, dtype=object)
    for index, element in enumerate(elements):
        flat[index] = _bytes_element(name, element)
    return flat.reshape(raw.shape)


def datatypes_line(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the datatypes of named arrays in one line, such as `label:INT64,scores:FP32`.

    A comma or percent sign in a name is written as in URLs.
    """
    return ",".join(f"{_escaped(name)}:{datatype_of(array.dtype)}" for name, array in tensors.items())


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(",", "%2C") if "%" in name or "," in name else name


def can_be_json(tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether Postgres can hold these arrays as JSON exactly: no NaN, no infinity, no empty one, no binary."""
    return all(array.size > 0 and all_finite(array) and _is_text(array) for array in tensors.values())


def _is_text(array: NDArray[Any]) -> bool:
    if array.dtype.kind not in _TEXT_KINDS:
        return True
    try:
        # JSON text in Postgres can hold neither NUL nor lone surrogates.
        return not any(b"\0" in _utf8(element) for element in array.reshape(-1).tolist())
    except (UnicodeError, AttributeError):
        return False


def _utf8(element: bytes | str) -> bytes:
    return (element if isinstance(element, str) else element.decode()).encode()


def tensors_to_json(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Write named arrays as a JSON object of nested lists, each float by its shortest exact digits.

    NaN and infinity become the literals of `python_json`, and bytes that are no text base64. What `can_be_json` holds
    of is written so that every reader of JSON reads it, and `tensors_from_json` gives it back exactly.
    """
    values = {name: _jsonable(array) for name, array in tensors.items()}
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    # The encoder writes NaN and infinity as null. The cheap look comes first.
    if b"null" not in text:
        return text
    parts = [orjson.dumps(name) + b":" + python_json.encode_array(value) for name, value in values.items()]
    return b"{" + b",".join(parts) + b"}"


def _jsonable(array: NDArray[Any]) -> Any:
    """Return a value for the encoder: a contiguous array of numbers, a number, or text in nested lists."""
    kind = array.dtype.kind
    if kind in _TEXT_KINDS:
        texts = np.array([_text(element) for element in array.reshape(-1).tolist()], dtype=object)
        return texts.reshape(array.shape).tolist()
    if kind == "V" or (kind == "f" and array.dtype.itemsize == 2):
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            array = array.astype(np.float32)
    if array.ndim:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    # The encoder takes no array without dimensions, and ascontiguousarray gives it one.
    return float(str(array[()])) if array.dtype.kind == "f" else array.item()


def _text(element: bytes | str) -> str:
    if isinstance(element, str):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        return base64.b64encode(element).decode()


def tensors_from_json(document: Mapping[str, object], datatypes: str) -> Tensors:
    """Read back what `tensors_to_json` wrote, given its `datatypes_line`; in the order of that line.

    A store may keep the names of an object in an order of its own (jsonb does). Raises SignatureMismatch if the two
    don't fit.
    """
    kinds: dict[str, str] = {}
    for part in filter(None, datatypes.split(",")):
        name, _, kind = part.rpartition(":")
        kinds[name.replace("%2C", ",").replace("%25", "%")] = kind
    if kinds.keys() != document.keys():
        raise SignatureMismatch(f"the datatypes {quoted(datatypes)} are not those of {quoted(list(document))}")
    return {name: as_array(document[name], kind, name) for name, kind in kinds.items()}
