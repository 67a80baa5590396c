"""The contract of a source: how the files of one format are cut into units, and how a slice of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.contracts.errors import HeadraceError, InvalidRequest
from headrace.results_store.jobs.records import BadRow, InputFile, Slice


class InputUnreadable(HeadraceError):
    """An input file can't be read as its format; see the job's errors."""


class UnknownFormat(InvalidRequest):
    """The format of an input can't be told by its name; name it with --input-format."""


class MissingColumn(InputUnreadable):
    """A column that the job needs is not in an input file."""


class SchemaChanged(InputUnreadable):
    """A column has another type in one input file than in the first; convert one of them, or run two jobs."""


class RowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as they were read. rows: the number in its file of each row of `table`. bad: rows that can't be read.

    next_row: the number after the last row that this batch accounts for, in `table` or in `bad`. An entry in `bad` with
    row -1 stands for a file that can't be read (any further), however many rows it has.
    """

    file_no: int
    table: pa.RecordBatch
    rows: NDArray[np.int64]
    next_row: int
    bad: list[BadRow] = []


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a file that can be read by itself: a row group, a segment of lines, or the whole file.

    byte_stop: -1 is the end of the file. rows: -1 while nobody has counted them. first_line: of a text file, from 1; 0
    is unknown.
    """

    number: int
    first_row: int
    rows: int
    byte_start: int = 0
    byte_stop: int = -1
    size_bytes: int = 0
    first_line: int = 0


class Files(Protocol):
    """Opens input files: a storage, or what counts the bytes that one reads."""

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open a file for reading at random. etag: raises InputChanged when it has another one by now."""
        ...


class Source(Protocol):
    """One format of inputs."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return names and types of the columns. Raises InputUnreadable."""
        ...

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield the units of a file in order, in one cheap pass over no more of it than is needed.

        A file that can only be read as a whole is one unit. Raises InputUnreadable.
        """
        ...

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of the part of a slice that lies in this file, in order, from `part.row_start` on.

        columns: those to read; None is all. Of a slice of several files, `part` is narrowed to this one. Holds no more
        than some MB at a time, whatever the file's row groups or lines are. A row that can't be read is in `bad`.
        """
        ...


def empty_rows() -> NDArray[np.int64]:
    """Return row numbers of no rows."""
    return np.empty(0, np.int64)


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """Return a table without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def bytes_column(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Return a column of bytes, or of strings given as UTF-8. Unlike `pyarrow.array`, it never imports pandas."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    content = values[0] if len(values) == 1 else b"".join(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def as_record_batch(columns: dict[str, Any]) -> pa.RecordBatch:
    """Return a record batch of columns."""
    return pa.RecordBatch.from_pydict(columns)
