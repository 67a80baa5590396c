"""Types of columns in JSON lines: guessed from a sample of rows, and what a value must be to fit. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, TypedDict

import msgspec
import pyarrow as pa

#: The type of a column whose values are of no one kind, or all null: each value is delivered as its JSON text, strings
#: without their quotes, so that the preparation can still cast it.
ANY_JSON: Final = pa.large_string()

#: Values of all lists of a column that a guess looks at.
_LOOKED_AT: Final = 10_000

_INT64: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def guess_schema(rows: Iterable[dict[str, Any]]) -> pa.Schema:
    """Return names and types of the columns of some rows.

    A column has the type of most of its values. Numbers are int64 if all are integers, but float64 inside lists.
    """
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return pa.schema([(name, guess_type(values)) for name, values in columns.items()])


def guess_type(values: Sequence[Any]) -> pa.DataType:
    """Return the type of most of the values that aren't null; ANY_JSON if there is none."""
    return _type(values) or ANY_JSON


def _type(values: Sequence[Any]) -> pa.DataType | None:
    kinds = Counter(_kind(value) for value in values if value is not None)
    if not kinds:
        return None
    kind, count = kinds.most_common(1)[0]
    if 2 * count <= kinds.total():
        return None
    fitting = [value for value in values if value is not None and _kind(value) is kind]
    if kind is list:
        inner = _type(list(itertools.islice(itertools.chain.from_iterable(fitting), _LOOKED_AT)))
        return None if inner is None else pa.list_(pa.float64() if pa.types.is_integer(inner) else inner)
    if kind is dict:
        return _struct(fitting)
    if kind is float:
        whole = all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in fitting)
        return pa.int64() if whole else pa.float64()
    return pa.bool_() if kind is bool else pa.string()


def _struct(values: Sequence[dict[str, Any]]) -> pa.DataType | None:
    names = dict.fromkeys(name for value in values for name in value)
    fields = [(name, _type([value.get(name) for value in values])) for name in names]
    if not fields or any(kind is None for _, kind in fields):
        return None
    return pa.struct(fields)


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)


def read_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type with which values of a wanted type are read from JSON; None if JSON has no such values."""
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    if kind in (pa.bool_(), pa.string(), ANY_JSON):
        return kind
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = read_type(kind.value_type)
        return None if inner in (None, ANY_JSON) else pa.list_(inner)
    if pa.types.is_struct(kind):
        fields = [(field.name, read_type(field.type)) for field in kind]
        return None if any(inner in (None, ANY_JSON) for _, inner in fields) else pa.struct(fields)
    return None


def row_type(schema: pa.Schema) -> Any:
    """Return the type, for msgspec, of rows that fit a schema. Columns that aren't in it are ignored."""
    return TypedDict("Row", {field.name: _value_type(field.type) for field in schema}, total=False)  # type: ignore[operator]


def _value_type(kind: pa.DataType) -> Any:
    if kind == ANY_JSON:
        return Any
    if pa.types.is_list(kind):
        return list[_value_type(kind.value_type)] | None  # type: ignore[misc]
    if pa.types.is_struct(kind):
        return row_type(pa.schema(list(kind))) | None
    simple: dict[pa.DataType, Any] = {pa.int64(): _INT64, pa.float64(): float, pa.bool_(): bool, pa.string(): str}
    return simple[kind] | None
