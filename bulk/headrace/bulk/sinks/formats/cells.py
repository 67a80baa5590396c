"""Arrow columns as values that orjson writes: the JSON of JSON lines, and of vectors in a cell of CSV.

Floats are written as the shortest text that reads as the same float, in their own width (0.1, not
0.10000000149011612, for a float32). JSON has no NaN and no infinity: they become null. Binary is base64, a
timestamp ISO 8601 text, a decimal text, a duration the number of its units, a map an object if its keys are text.
"""

from __future__ import annotations

import base64
import decimal
import itertools
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

#: Of `orjson.dumps`: rows of vectors are views into one array, without a Python float each.
OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY


def dumps(value: object) -> bytes:
    """Return the JSON of a value of `json_values`."""
    return orjson.dumps(value, option=OPTIONS, default=_text)


def json_values(array: pa.Array) -> list[Any]:
    """Return one value that `dumps` takes for each row, None for null."""
    array = plain(array)
    values = next((read(array) for fits, read in _READERS if fits(array.type)), None)
    return _without_nulls(array.to_pylist() if values is None else values, array)


def plain(array: pa.Array) -> pa.Array:
    """Return an array without its extension type and its dictionary."""
    if isinstance(array.type, pa.BaseExtensionType):
        return plain(array.storage)
    return plain(array.dictionary_decode()) if pa.types.is_dictionary(array.type) else array


def is_nested(kind: pa.DataType) -> bool:
    """Return whether values of a type hold others: lists, structs and maps."""
    return bool(pa.types.is_nested(kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind))


def base64_texts(array: pa.Array) -> pa.Array:
    """Return binary values as base64."""
    return pa.array([None if value is None else _text(value) for value in array.to_pylist()], pa.string())


def _floats(array: pa.Array) -> list[Any]:
    return list(pc.fill_null(array, 0).to_numpy(zero_copy_only=False))


def _durations(array: pa.Array) -> list[Any]:
    return array.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


def _times(array: pa.Array) -> list[Any]:
    return array.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _without_nulls(values: list[Any], array: pa.Array) -> list[Any]:
    """Return values with None where the array has a null."""
    if not array.null_count:
        return values
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [json_values(array.field(at)) for at in range(len(names))]
    return (
        [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)] if names else [{}] * len(array)
    )


def _maps(array: pa.Array) -> list[Any]:
    keys, items = json_values(array.keys), json_values(array.items)
    pairs = list(zip(keys, items, strict=True))
    spans = _spans(array)
    if pa.types.is_string(array.type.key_type) or pa.types.is_large_string(array.type.key_type):
        return [dict(pairs[start:stop]) for start, stop in spans]
    return [[list(pair) for pair in pairs[start:stop]] for start, stop in spans]


def _lists(array: pa.Array) -> list[Any]:
    kind = array.type
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        spans = [(row * size, (row + 1) * size) for row in range(len(array))]
    else:
        values, spans = array.values, _spans(array)
    if _is_number(values.type) and not values.null_count:
        numbers = values.to_numpy(zero_copy_only=False)
        return [numbers[start:stop] for start, stop in spans]
    items = json_values(values)
    return [items[start:stop] for start, stop in spans]


def _spans(array: pa.Array) -> list[tuple[int, int]]:
    offsets = array.offsets.to_pylist()
    return list(itertools.pairwise(offsets))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, np.ndarray):  # one that is no contiguous block; orjson writes the others itself
        return value.tolist()  # type: ignore[no-any-return]
    raise TypeError(f"no JSON for a {type(value).__name__}")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


#: How values of a type are read; what fits none of them is what pyarrow makes of it.
_READERS: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...]] = (
    (pa.types.is_map, _maps),
    (pa.types.is_struct, _structs),
    (_is_list, _lists),
    (pa.types.is_floating, _floats),
    (pa.types.is_duration, _durations),
    (pa.types.is_temporal, _times),
)
