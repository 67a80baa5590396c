"""What tests ask of a source: all rows of a slice with their numbers, and the cuts of a file into slices."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bulk.sources.base import RowBatch
from headrace.bulk.sources.formats import source_of
from headrace.bulk.sources.slices import Wanted, read_slice
from headrace.bulk.storage.base import Storage
from headrace.results_store.jobs.records import BadRow, InputFile, Slice

Add: TypeAlias = Callable[..., InputFile]


def parquet_bytes(table: pa.Table, group_rows: int | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group_rows)
    return sink.getvalue()


def whole(*files: InputFile, row_start: int = 0, rows: int = -1) -> Slice:
    return Slice(file_no=files[0].file_no, files=len(files), row_start=row_start, rows=rows)


def rows_of(
    storage: Storage, files: Sequence[InputFile], part: Slice, columns: Sequence[str] | None = None
) -> list[tuple[int, int, dict[str, Any]]]:
    """Return file number, row number and values of each good row."""
    return flat(read_slice(files, part, storage, Wanted(columns=None if columns is None else tuple(columns))))


def flat(batches: Iterator[RowBatch]) -> list[tuple[int, int, dict[str, Any]]]:
    return [
        (batch.file_no, int(row), values)
        for batch in batches
        for row, values in zip(batch.rows, batch.table.to_pylist(), strict=True)
    ]


def values_of(storage: Storage, file: InputFile, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return [values for _, _, values in rows_of(storage, [file], whole(file), columns)]


def bad_of(storage: Storage, *files: InputFile, part: Slice | None = None) -> list[BadRow]:
    return [bad for batch in read_slice(files, part or whole(*files), storage) for bad in batch.bad]


def slices_of(storage: Storage, file: InputFile) -> list[Slice]:
    """Return a slice for each unit of a file."""
    return [
        Slice(
            file_no=file.file_no,
            unit=unit.number,
            units=1,
            byte_start=unit.byte_start,
            byte_stop=unit.byte_stop,
            range_row=unit.first_row,
            range_line=unit.first_line,
            row_start=unit.first_row,
            rows=unit.rows,
        )
        for unit in source_of(file.uri, file.format).units(file, storage)
    ]
