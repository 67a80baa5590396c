"""Hive partitions: parts of a path such as `day=2026-11-30` are columns that are the same in all rows of a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias
from urllib.parse import unquote

import msgspec
import pyarrow as pa

from headrace.bulk.sources.base import InputUnreadable
from headrace.contracts.errors import quoted

Value: TypeAlias = str | int | None

#: How Hive writes null.
_NULL: Final = "__HIVE_DEFAULT_PARTITION__"

_WILDCARD: Final = re.compile(r"[*?\[]")

#: More digits may be more than int64 holds.
_MOST_DIGITS: Final = 18


class Partitions(msgspec.Struct, frozen=True):
    """The columns that a file has by its path."""

    values: dict[str, Value]

    def left_of(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        """Return which columns are read from the file itself; None is all."""
        if columns is None or not self.values:
            return columns
        return [name for name in columns if name not in self.values] or None

    def left_of_schema(self, schema: pa.Schema | None) -> pa.Schema | None:
        """Return the types of columns that are read from the file itself."""
        return schema and pa.schema([field for field in schema if field.name not in self.values])

    def add_to_schema(self, schema: pa.Schema, uri: str) -> pa.Schema:
        """Return a file's schema with these columns. Raises InputUnreadable when the file has one of the same name."""
        for name in self.values:
            if name in schema.names:
                both = f"a column {quoted(name)} and a folder {quoted(name + '=…')} in its path"
                raise InputUnreadable(f"{uri} has {both}; rename one of them")
        return pa.schema([*schema, *((name, _type(value)) for name, value in self.values.items())])

    def add_to(self, table: pa.RecordBatch, columns: Sequence[str] | None, uri: str) -> pa.RecordBatch:
        """Return a table with these columns, as far as they are wanted, in the order in which they are."""
        if not self.values:
            return table
        schema = self.add_to_schema(table.schema, uri)
        arrays = [*table.columns, *(_repeated(value, table.num_rows) for value in self.values.values())]
        whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return whole if columns is None else whole.select(list(columns))


def partitions_of(uri: str, folders: Sequence[str]) -> Partitions:
    """Return the columns that a file has by its path below one of the folders. Names and values are URL-decoded.

    A value of digits is an integer.
    """
    below = [uri.removeprefix(root) for root in map(_root, folders) if uri.startswith(root)]
    if not below:
        return Partitions({})
    parts = min(below, key=len).split("/")[:-1]
    pairs = (part.partition("=") for part in parts)
    return Partitions({unquote(name): _value(unquote(value)) for name, is_pair, value in pairs if is_pair and name})


def _root(folder: str) -> str:
    """Return where paths below an input begin; of a glob, before its first wildcard."""
    wildcard = _WILDCARD.search(folder)
    if wildcard:
        return folder[: folder.rfind("/", 0, wildcard.start()) + 1]
    return folder.rstrip("/") + "/"


def _value(text: str) -> Value:
    if text == _NULL:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else text


def _type(value: Value) -> pa.DataType:
    if value is None:
        return pa.null()
    return pa.int64() if isinstance(value, int) else pa.string()


def _repeated(value: Value, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, _type(value)), count)
