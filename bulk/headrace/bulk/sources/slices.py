"""The rows of a slice, whatever files and formats it spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TypeAlias

import msgspec
import pyarrow as pa

from headrace.bulk.sources.ahead import ahead, in_turn
from headrace.bulk.sources.base import Files, InputUnreadable, MissingColumn, RowBatch, empty_rows, no_rows
from headrace.bulk.sources.formats import source_of
from headrace.bulk.sources.partitions import partitions_of
from headrace.bulk.sources.projection import project
from headrace.bulk.sources.reading import bad_row, within
from headrace.bulk.sources.schemas import conform
from headrace.results_store.jobs.records import InputFile, Slice


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The columns that a job wants of its files, and their types.

    columns: None is all. schema: types that columns have in all batches; those that aren't in it, or all if it is None,
    have the type that they have in the first file of the slice. folders: that were given as inputs; `key=value` parts
    of a path below them are columns.
    """

    columns: tuple[str, ...] | None = None
    schema: pa.Schema | None = None
    folders: tuple[str, ...] = ()


class Unreadable(msgspec.Struct, frozen=True):
    """A file that can't be read, or no further. next_row: number of the first row that was not delivered."""

    file: InputFile
    next_row: int
    error: InputUnreadable


#: What happens about a file that can't be read: an error is raised, or the next file follows an entry with row -1.
Policy: TypeAlias = Callable[[Unreadable], RowBatch]


def refuse(found: Unreadable) -> RowBatch:
    """Raise the error: nothing more of the slice is read."""
    raise found.error


def report(found: Unreadable) -> RowBatch:
    """Return a batch with no row, and one entry in `bad` with row -1 that stands for the rest of the file."""
    entry = bad_row(found.file, -1, found.error.message)
    table = no_rows(pa.schema([]))
    return RowBatch(file_no=found.file.file_no, table=table, rows=empty_rows(), next_row=found.next_row, bad=[entry])


def read_slice(
    files: Sequence[InputFile],
    part: Slice,
    storage: Files,
    wanted: Wanted = Wanted(),  # noqa: B008 - frozen
    on_unreadable: Policy = report,
) -> Iterator[RowBatch]:
    """Yield the rows of a slice in order, file by file; all tables with rows have one schema, without rows also if
    `wanted.schema` has the types of all columns.

    files: of the slice, maybe among others. A file that can't be read, or not further, is left to `on_unreadable`.
    Raises the errors of the storage.
    """
    by_number = {file.file_no: file for file in files}
    left, schema = part.rows, None
    several = [by_number[file_no] for file_no in range(part.file_no, part.file_no + part.files)]
    in_order = ahead if part.files > 1 and "://" in several[0].uri else in_turn
    with closing(in_order(several, lambda file: _read_file(file, narrow(part, file), storage, wanted))) as reads:
        for file, batches in reads:
            if left == 0:
                return
            next_row = narrow(part, file).row_start
            try:
                for batch in within(narrow(part, file, left), batches):
                    schema = schema or expected(wanted.schema, batch.table.schema)
                    yield msgspec.structs.replace(batch, table=conform(batch.table, schema, file.uri))
                    next_row = batch.next_row
                    left = left if left < 0 else left - len(batch.rows) - len(batch.bad)
            except InputUnreadable as exc:
                found = on_unreadable(Unreadable(file, next_row, exc))
                yield msgspec.structs.replace(found, table=no_rows(schema or _known_schema(wanted)))


def schema_of(file: InputFile, storage: Files, wanted: Wanted = Wanted()) -> pa.Schema:  # noqa: B008 - frozen
    """Return names and types of all columns of a file, those of its path included. Raises InputUnreadable."""
    schema = source_of(file.uri, file.format).schema(file, storage)
    return partitions_of(file.uri, wanted.folders).add_to_schema(schema, file.uri)


def count_rows(file: InputFile, storage: Files, at_most: int) -> int:
    """Return how many rows a file has, bad ones included, or `at_most` if it has more; it is read for that.

    For files whose units don't tell, where a limit must be kept.
    """
    batches = source_of(file.uri, file.format).read(file, Slice(file_no=file.file_no, rows=at_most), storage, None)
    return sum(len(batch.rows) + len(batch.bad) for batch in batches) if at_most > 0 else 0


def _read_file(file: InputFile, part: Slice, storage: Files, wanted: Wanted) -> Iterator[RowBatch]:
    partitions = partitions_of(file.uri, wanted.folders)
    source = source_of(file.uri, file.format, partitions.left_of_schema(wanted.schema))
    for batch in source.read(file, part, storage, partitions.left_of(wanted.columns)):
        yield msgspec.structs.replace(batch, table=partitions.add_to(batch.table, wanted.columns, file.uri))


def narrow(part: Slice, file: InputFile, rows: int = -1) -> Slice:
    """Return the part of a slice that lies in one of its files. rows: how many of them at most; -1 is all."""
    if part.files == 1:
        return part
    return Slice(file_no=file.file_no, row_start=part.row_start if file.file_no == part.file_no else 0, rows=rows)


def expected(types: pa.Schema | None, found: pa.Schema) -> pa.Schema:
    """Return the schema of all tables of a slice, given that of the first."""
    return pa.schema([_known_field(types, each.name) or each for each in found])


def _known_schema(wanted: Wanted) -> pa.Schema:
    """Return what is known of the schema before anything is read: the columns that are wanted, without all types."""
    names = wanted.columns if wanted.columns is not None else wanted.schema.names if wanted.schema else ()
    return pa.schema([_known_field(wanted.schema, name) or pa.field(name, pa.null()) for name in names])


def _known_field(types: pa.Schema | None, name: str) -> pa.Field | None:
    if types is None:
        return None
    try:
        return project(types, [name], "").schema.field(0)
    except MissingColumn:
        return None
