"""Schemas of different files of one job: what may differ, and what may not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from headrace.bulk.sources.base import SchemaChanged
from headrace.bulk.sources.projection import missing_column
from headrace.contracts.errors import quoted


def check_same_schema(first: pa.Schema, other: pa.Schema, columns: Iterable[str], uri: str) -> None:
    """Raise MissingColumn or SchemaChanged unless a file has the needed columns, with types like those of the first.

    uri: of the other file. Columns that aren't needed may come, go and differ; numbers may be wider or narrower.
    """
    for name in columns:
        at = other.get_field_index(name)
        if at < 0:
            raise missing_column(name, other.names, uri)
        known, found = first.field(name).type, other.field(at).type
        if not is_like(known, found):
            raise SchemaChanged(
                f"{uri} has column {quoted(name)} as {found}, the first file has it as {known};"
                " convert one of them, or run two jobs"
            )


def with_floats(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    """Return a schema in which integers of some columns are float64: those that a model takes as real numbers.

    In JSON and the like, 0 may be any number; what a sample shows must not make a row bad that has 0.5.
    """
    names = set(columns)
    return pa.schema([pa.field(each.name, _float(each.type)) if each.name in names else each for each in schema])


def is_like(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether values of both types can be one column."""
    if one == other or pa.types.is_null(one) or pa.types.is_null(other):
        return True
    if pa.types.is_dictionary(one) or pa.types.is_dictionary(other):
        return is_like(_plain(one), _plain(other))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return {field.name for field in one} == {field.name for field in other} and all(
            is_like(field.type, other.field(field.name).type) for field in one
        )
    families = (_is_text, _is_binary, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, _is_timestamp)
    if _is_list(one) and _is_list(other):
        return is_like(one.value_type, other.value_type)
    return any(family(one) and family(other) for family in families)


def conform(table: pa.RecordBatch, schema: pa.Schema, uri: str) -> pa.RecordBatch:
    """Return a table with the columns and types of a schema. Raises MissingColumn and SchemaChanged.

    A value that the type of the schema can't hold raises SchemaChanged too.
    """
    if table.schema.equals(schema):
        return table
    check_same_schema(schema, table.schema, schema.names, uri)
    columns: Sequence[pa.Array] = [_cast(table.column(field.name), field, uri) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field, uri: str) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        if pa.types.is_floating(field.type):
            return pc.cast(column, field.type, safe=False)
        return pc.cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise SchemaChanged(
            f"{uri} has column {quoted(field.name)} as {column.type}, and not all of it fits into {field.type},"
            " its type in the first file; convert one of them, or run two jobs"
        ) from exc


def _float(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_float(kind.value_type))
    return pa.float64() if pa.types.is_integer(kind) else kind


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_timestamp(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
