"""Small files are read several at once, and nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest
from msgspec.structs import replace
from tests.bulk.sources.reads import parquet_bytes, whole

from headrace.bulk.sources.ahead import AT_ONCE, SMALL_BYTES, ahead
from headrace.bulk.sources.base import InputUnreadable, RowBatch, empty_rows
from headrace.bulk.sources.slices import read_slice
from headrace.bulk.storage.base import InputMissing
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.results_store.jobs.records import InputFile

FILES = [InputFile(file_no=number, uri=f"s3://b/{number}", format="", size=10) for number in range(50)]


def batch_of(file: InputFile) -> RowBatch:
    return RowBatch(
        file_no=file.file_no, table=pa.RecordBatch.from_pylist([], pa.schema([])), rows=empty_rows(), next_row=0
    )


def test_files_are_read_at_once_and_yielded_in_order() -> None:
    together = threading.Barrier(AT_ONCE, timeout=30)

    def read(file: InputFile) -> Iterator[RowBatch]:
        if file.file_no < AT_ONCE:
            together.wait()
        yield batch_of(file)

    found = [(file.file_no, [batch.file_no for batch in batches]) for file, batches in ahead(FILES, read)]
    assert found == [(number, [number]) for number in range(50)]


def test_large_files_are_read_when_it_is_their_turn() -> None:
    threads: list[threading.Thread] = []

    def read(file: InputFile) -> Iterator[RowBatch]:
        threads.append(threading.current_thread())
        yield batch_of(file)

    files = [replace(file, size=SMALL_BYTES + 1) for file in FILES]
    assert [len(list(batches)) for _, batches in ahead(files, read)] == [1] * 50
    assert set(threads) == {threading.current_thread()}


def test_an_error_comes_behind_the_rows_before_it_and_stops_no_other_file() -> None:
    def read(file: InputFile) -> Iterator[RowBatch]:
        yield batch_of(file)
        if file.file_no == 3:
            raise InputUnreadable("broken")

    for file, batches in ahead(FILES, read):
        assert next(batches).file_no == file.file_no
        if file.file_no == 3:
            with pytest.raises(InputUnreadable, match="broken"):
                next(batches)


def test_closing_early_ends_all_reads() -> None:
    def read(file: InputFile) -> Iterator[RowBatch]:
        yield batch_of(file)

    before = threading.active_count()
    reads = ahead(FILES, read)
    next(reads)
    reads.close()
    assert threading.active_count() == before


def test_a_slice_over_many_objects_is_read_in_order(s3_bucket: str) -> None:
    storage = open_storage(s3_bucket, Roots([s3_bucket]))
    files = []
    for number in range(20):
        content = b"broken" if number == 7 else parquet_bytes(pa.table({"a": [number, number]}))
        info = storage.put(f"{s3_bucket}/{number:02}.parquet", content)
        files.append(InputFile(file_no=number, uri=info.uri, format="", size=info.size, etag=info.etag))
    batches = list(read_slice(files, whole(*files, row_start=1, rows=30), storage))
    assert [row["a"] for batch in batches for row in batch.table.to_pylist()] == [
        number for number in range(17) if number != 7 for _ in range(2) if number or _
    ][:30]
    assert [(bad.file_no, bad.row) for batch in batches for bad in batch.bad] == [(7, -1)]
    storage.delete(files[5].uri)
    with pytest.raises(InputMissing):
        list(read_slice(files, whole(*files), storage))
