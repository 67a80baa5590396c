"""Projection: the columns that a job needs, out of those that a file has. A dotted name is a field inside a struct."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headrace.bulk.sources.base import InputUnreadable, MissingColumn
from headrace.contracts.errors import quoted

#: Columns of a file that an error lists.
_LISTED = 20


class Projection(msgspec.Struct, frozen=True):
    """Columns to read and deliver. stored: paths in the file; delivered: names, in order, of which nested ones are
    dotted paths."""

    stored: list[str]
    schema: pa.Schema

    def apply(self, table: pa.RecordBatch) -> pa.RecordBatch:
        """Return a table of the delivered columns from one that has at least what is stored."""
        return pa.RecordBatch.from_arrays([_column(table, name) for name in self.schema.names], schema=self.schema)


def project(schema: pa.Schema, columns: Sequence[str] | None, uri: str) -> Projection:
    """Return the projection of a file's columns. columns: None is all.

    Raises MissingColumn, naming the closest match, and InputUnreadable when two columns have the same name.
    """
    refuse_duplicates(schema.names, uri)
    wanted = schema.names if columns is None else dict.fromkeys(columns)
    fields = [_field(schema, name, uri) for name in wanted]
    return Projection(stored=list(wanted), schema=pa.schema(fields))


def refuse_duplicates(names: Sequence[str], uri: str) -> None:
    """Raise InputUnreadable when two columns of a file have the same name."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        listed = ", ".join(quoted(name) for name in doubled[:_LISTED])
        raise InputUnreadable(f"{uri} has more than one column named {listed}; rename all but one")


def missing_column(name: str, names: Sequence[str], uri: str) -> MissingColumn:
    """Return the error about a column that a file doesn't have."""
    close = difflib.get_close_matches(name, names, 1, 0.6)
    hint = f"did you mean {quoted(close[0])}? " if close else ""
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return MissingColumn(f"{uri} has no column {quoted(name)}; {hint}it has: {listed or 'none'}")


def _field(schema: pa.Schema, name: str, uri: str) -> pa.Field:
    if name in schema.names:
        return schema.field(name)
    within = schema
    for step in name.split("."):
        at = within.get_field_index(step) if isinstance(within, pa.Schema | pa.StructType) else -1
        if at < 0:
            raise missing_column(name, schema.names, uri)
        within = within.field(at).type
    return pa.field(name, within)


def _column(table: pa.RecordBatch, name: str) -> pa.Array:
    if name in table.schema.names:
        return table.column(name)
    first, *rest = name.split(".")
    return pc.struct_field(table.column(first), rest)
