"""Tensors on the wire: name → (datatype, shape, raw little-endian bytes), packed with msgpack.

Content type `application/x-headrace-tensors`. Decoding is zero-copy: arrays are read-only views into
the received buffer. BYTES elements are each a 4-byte little-endian length and their bytes, as in the
binary extension of the Open Inference Protocol v2. Every tensor has a leading row dimension.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from headrace.contracts.datatypes import DTYPES, all_finite, datatype_of, dtype_of
from headrace.contracts.errors import InvalidRequest, SignatureMismatch

CONTENT_TYPE: Final = "application/x-headrace-tensors"

#: A dict of named arrays, rows first.
Tensors: TypeAlias = dict[str, NDArray[Any]]

#: numpy's own limit; a forged shape with more dimensions is refused before numpy sees it.
MAX_DIMENSIONS: Final = 32

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, tuple[str, tuple[int, ...], memoryview]]).decode


def encode_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack named arrays into bytes; any memory order, any byte order."""
    return _encode({name: _to_wire(array) for name, array in tensors.items()})


def _to_wire(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes | memoryview]:
    datatype = datatype_of(array.dtype)
    if datatype == "BYTES":
        return datatype, array.shape, _pack_bytes(array.reshape(-1).tolist())
    little = np.ascontiguousarray(array, dtype=DTYPES[datatype])
    # tobytes() is faster than a memoryview for the small arrays of single-row requests.
    return datatype, array.shape, little.tobytes()


def decode_tensors(body: bytes | memoryview) -> Tensors:
    """Unpack what `encode_tensors` made; arrays are read-only views into `body`.

    Raises InvalidRequest when the body is truncated, forged or not of this format.
    """
    try:
        wire = _decode(body)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidRequest(f"the body is not {CONTENT_TYPE}: {exc}; encode it with headrace.contracts") from exc
    return {name: _from_wire(name, *parts) for name, parts in wire.items()}


def _from_wire(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> NDArray[Any]:
    dtype = dtype_of(datatype)
    count = _element_count(name, shape)
    if datatype == "BYTES":
        return _unpack_bytes(name, data, count).reshape(shape)
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"input {name!r} carries {len(data)} bytes, but {datatype} of shape {list(shape)} needs "
            f"{count * dtype.itemsize}; the body is truncated or forged"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _element_count(name: str, shape: tuple[int, ...]) -> int:
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"input {name!r} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are possible")
    count = 1
    for size in shape:
        if size < 0:
            raise InvalidRequest(f"input {name!r} has a negative size in its shape {list(shape)}")
        count *= size
    return count


def _pack_bytes(elements: Iterable[Any]) -> bytes:
    parts: list[bytes] = []
    for element in elements:
        raw = element.encode() if isinstance(element, str) else element
        if not isinstance(raw, bytes):
            raise SignatureMismatch(f"a BYTES tensor holds str or bytes, not {type(element).__name__}")
        parts.append(struct.pack("<I", len(raw)))
        parts.append(raw)
    return b"".join(parts)


def _unpack_bytes(name: str, data: memoryview, count: int) -> NDArray[Any]:
    if count * 4 > len(data):
        raise InvalidRequest(f"input {name!r} is truncated: {count} BYTES elements don't fit into {len(data)} bytes")
    array = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        if at + 4 > len(data):
            raise InvalidRequest(f"input {name!r} is truncated in BYTES element {index}")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise InvalidRequest(f"input {name!r} is truncated in BYTES element {index}")
        array[index] = bytes(data[at : at + size])
        at += size
    if at != len(data):
        raise InvalidRequest(f"input {name!r} carries {len(data) - at} bytes too many")
    return array


def as_array(value: object, datatype: str, name: str = "input") -> NDArray[Any]:
    """Turn nested lists (from JSON, or from Python) into an array of `datatype`.

    Integers may become floats and floats round to the precision of `datatype`; what would change a value
    otherwise (1.5 → INT64, 300 → UINT8, 1e39 → FP32) is refused. Raises SignatureMismatch.
    """
    dtype = dtype_of(datatype)
    if datatype == "BYTES":
        return _bytes_array(value, name)
    try:
        raw = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as exc:
        raise SignatureMismatch(f"input {name!r} is not a regular array of {datatype}: {exc}") from None
    if raw.dtype == dtype:
        return raw
    if raw.size == 0:
        return raw.astype(dtype)
    allowed = {"b": "b", "u": "iu", "i": "iu", "f": "iuf", "V": "iuf"}["V" if datatype == "BF16" else dtype.kind]
    if raw.dtype.kind not in allowed:
        found = "a mix of lengths or types" if raw.dtype.kind == "O" else f"values of numpy type {raw.dtype}"
        raise SignatureMismatch(f"input {name!r} must be {datatype}, but holds {found}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise SignatureMismatch(f"input {name!r} has values outside {datatype} ({limits.min} to {limits.max})")
    with np.errstate(over="ignore"):
        cast = raw.astype(dtype)
    if all_finite(raw) and not all_finite(cast):
        raise SignatureMismatch(f"input {name!r} has values outside {datatype}")
    return cast


def _bytes_array(value: object, name: str) -> NDArray[Any]:
    raw = np.asarray(value, dtype=object)
    flat = np.empty(raw.size, dtype=object)
    for index, element in enumerate(raw.reshape(-1).tolist()):
        if isinstance(element, str):
            flat[index] = element.encode()
        elif isinstance(element, bytes):
            flat[index] = element
        else:
            raise SignatureMismatch(f"input {name!r} must be BYTES (strings), but holds {type(element).__name__}")
    return flat.reshape(raw.shape)


def datatypes_line(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Describe the datatypes of named arrays in one line, such as `label:INT64,scores:FP32`."""
    return ",".join(f"{name}:{datatype_of(array.dtype)}" for name, array in tensors.items())


def can_be_json(tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Say whether `tensors_to_json` keeps these arrays exactly: no NaN, no infinity, no empty dimension."""
    return all(array.size > 0 and all_finite(array) and _is_text(array) for array in tensors.values())


def _is_text(array: NDArray[Any]) -> bool:
    if array.dtype.kind != "O":
        return True
    try:
        # JSON text in Postgres can't hold NUL.
        return not any("\0" in _text(element) for element in array.reshape(-1).tolist())
    except (UnicodeDecodeError, AttributeError):
        return False


def tensors_to_json(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Write named arrays as a JSON object of nested lists, each float by its shortest exact digits.

    Only for arrays of which `can_be_json` is true.
    """
    return orjson.dumps({name: _jsonable(array) for name, array in tensors.items()}, option=orjson.OPT_SERIALIZE_NUMPY)


def _jsonable(array: NDArray[Any]) -> object:
    kind = array.dtype.kind
    if kind == "O":
        return np.vectorize(_text, otypes=[object])(array).tolist()
    if kind == "V" or (kind == "f" and array.dtype.itemsize == 2):
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _text(element: bytes | str) -> str:
    return element if isinstance(element, str) else element.decode()


def tensors_from_json(document: Mapping[str, object], datatypes: str) -> Tensors:
    """Read back what `tensors_to_json` wrote, given its `datatypes_line`."""
    kinds = dict(part.rsplit(":", 1) for part in datatypes.split(",") if part)
    return {name: as_array(value, kinds[name], name) for name, value in document.items()}
