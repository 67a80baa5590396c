"""`.npy`: one array, whose rows are the values of a column named `array`; found by arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa

from headrace.bulk.sources.arrays.columns import arrow_column, arrow_type
from headrace.bulk.sources.arrays.layout import Layout, read_layout, read_rows
from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import project
from headrace.bulk.sources.reading import numbered, readable, unreadable
from headrace.results_store.jobs.records import InputFile, Slice

#: The name of the only column.
COLUMN: Final = "array"

#: Bytes of a unit, about.
UNIT_BYTES: Final = 32 << 20

_WHAT: Final = "NumPy file"


class Npy:
    """The source for `.npy`."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return the type of the column: lists of fixed size for each axis behind the first."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            layout = _layout(file, raw)
            return pa.schema([(COLUMN, arrow_type(layout.dtype, layout.shape))])

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield ranges of rows; only the header is read."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            layout = _layout(file, raw)
        step = max(UNIT_BYTES // layout.row_bytes, 1)
        for number, first in enumerate(range(0, layout.rows, step)):
            rows = min(step, layout.rows - first)
            begin, size = layout.start + first * layout.row_bytes, rows * layout.row_bytes
            yield Unit(
                number=number, first_row=first, rows=rows, byte_start=begin, byte_stop=begin + size, size_bytes=size
            )

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice; none before it is read."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            layout = _layout(file, raw)
            schema = project(pa.schema([(COLUMN, arrow_type(layout.dtype, layout.shape))]), columns, file.uri).schema
            stop = _stop(part, layout)
            raw.seek(layout.start + part.row_start * layout.row_bytes)
            tables = (
                pa.RecordBatch.from_arrays([arrow_column(rows)], schema=schema)
                for rows in read_rows(raw, layout, part.row_start, stop)
            )
            yield from numbered(file, tables, part.row_start)


def _layout(file: InputFile, raw: BinaryIO) -> Layout:
    layout = read_layout(raw)
    needed = layout.start + layout.rows * layout.row_bytes
    if file.size < needed:
        raise unreadable(file, f"is truncated: it has {file.size} bytes, its header says {needed}")
    return layout


def _stop(part: Slice, layout: Layout) -> int:
    """Return the number of the first row behind a slice."""
    if part.rows >= 0:
        return min(part.row_start + part.rows, layout.rows)
    if part.byte_stop >= 0:
        return min((part.byte_stop - layout.start) // layout.row_bytes, layout.rows)
    return layout.rows
