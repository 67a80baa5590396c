"""The frame of every reading: errors named by file, rows numbered, a slice applied."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bulk.sources.base import InputUnreadable, RowBatch
from headrace.contracts.errors import HeadraceError
from headrace.results_store.jobs.records import BadRow, InputFile, Slice

#: How much of a bad row is kept, as it is in the input.
MAX_INPUT_BYTES = 64 << 10


#: What pyarrow, NumPy, zipfile and zlib raise about the content of a file.
_DECODER_ERRORS = (
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def readable(file: InputFile, what: str) -> Iterator[None]:
    """Raise InputUnreadable for whatever a decoder raises about a file; errors of the storage pass.

    what: the format, for the message.
    """
    try:
        yield
    except HeadraceError:
        raise
    except _DECODER_ERRORS as exc:
        raise unreadable(file, f"is no readable {what}: {first_line(exc)}") from exc


def unreadable(file: InputFile, reason: str) -> InputUnreadable:
    """Return the error about a file."""
    return InputUnreadable(f"{file.uri} {reason}")


def first_line(exc: BaseException) -> str:
    """Return what an error says, without the stack that some libraries append."""
    return (str(exc) or type(exc).__name__).splitlines()[0]


def bad_row(file: InputFile, row: int, message: str, *, line: int = 0, content: bytes = b"") -> BadRow:
    """Return the entry of a row that can't be read; its content is cut to what is kept."""
    return BadRow(
        file_no=file.file_no,
        row=row,
        stage="read",
        type=InputUnreadable.__name__,
        message=message,
        line=line,
        input=content[:MAX_INPUT_BYTES],
    )


def is_wanted(part: Slice, first: int, count: int) -> bool:
    """Return whether some of the rows from a number on are in a slice."""
    return first + count > part.row_start and not is_past(part, first)


def is_past(part: Slice, row: int) -> bool:
    """Return whether a slice ends before a row."""
    return part.rows >= 0 and row >= part.row_start + part.rows


def numbered(file: InputFile, tables: Iterable[pa.RecordBatch], first: int) -> Iterator[RowBatch]:
    """Yield tables whose rows have consecutive numbers. first: that of the first row."""
    for table in tables:
        stop = first + table.num_rows
        yield RowBatch(file_no=file.file_no, table=table, rows=np.arange(first, stop), next_row=stop)
        first = stop


def within(part: Slice, batches: Iterable[RowBatch]) -> Iterator[RowBatch]:
    """Yield what of the batches of one file is in a slice, and read no batch behind it. Batches without rows pass."""
    for batch in batches:
        start = part.row_start
        stop = start + part.rows if part.rows >= 0 else max(batch.next_row, start)
        if batch.next_row > start or not batch.next_row:
            yield _clipped(batch, start, stop)
        if batch.next_row >= stop and part.rows >= 0:
            return


def _clipped(batch: RowBatch, start: int, stop: int) -> RowBatch:
    low, high = (int(at) for at in np.searchsorted(batch.rows, (start, stop)))
    if low == 0 and high == len(batch.rows) and batch.next_row <= stop and not batch.bad:
        return batch
    return msgspec.structs.replace(
        batch,
        table=batch.table.slice(low, high - low),
        rows=batch.rows[low:high],
        next_row=min(batch.next_row, stop),
        bad=[each for each in batch.bad if each.row < 0 or start <= each.row < stop],
    )
