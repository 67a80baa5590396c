"""What each source must do, tried with all formats, on a disk and in an object store."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.bulk.sources.reads import Add, parquet_bytes, rows_of, slices_of, whole

from headrace.bulk.sources.counting import CountedFiles
from headrace.bulk.sources.slices import read_slice
from headrace.bulk.storage.base import InputChanged, Storage
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.results_store.jobs.records import InputFile

ROWS = 20_000


def ipc_bytes() -> bytes:
    sink, table = io.BytesIO(), pa.table({"array": range(ROWS)})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3_000)
    return sink.getvalue()


def numpy_bytes(archive: bool) -> bytes:
    sink = io.BytesIO()
    if archive:
        np.savez_compressed(sink, array=np.arange(ROWS))
    else:
        np.save(sink, np.arange(ROWS))
    return sink.getvalue()


LINES = b"".join(b'{"array":%d}\n' % row for row in range(ROWS))
CONTENTS = {
    "a.parquet": parquet_bytes(pa.table({"array": range(ROWS)}), 3_000),
    "a.arrow": ipc_bytes(),
    "a.csv": b"array\n" + b"".join(b"%d\n" % row for row in range(ROWS)),
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.npy": numpy_bytes(archive=False),
    "a.npz": numpy_bytes(archive=True),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_are_numbered_and_read_once_through_all_units(storage: Storage, add: Add, name: str) -> None:
    file = add(name, CONTENTS[name])
    read = [row for cut in slices_of(storage, file) for row in rows_of(storage, [file], cut)]
    assert [(row, int(values["array"])) for _, row, values in read] == [(row, row) for row in range(ROWS)]


@pytest.mark.parametrize("name", CONTENTS)
def test_a_slice_goes_on_at_any_row_as_often_as_it_is_interrupted(storage: Storage, add: Add, name: str) -> None:
    file = add(name, CONTENTS[name])
    start = 0
    for stop in (1, 2_999, 3_001, 19_999, ROWS):
        read = rows_of(storage, [file], whole(file, row_start=start, rows=stop - start))
        assert [int(values["array"]) for *_, values in read] == list(range(start, stop))
        start = stop
    assert rows_of(storage, [file], whole(file, row_start=ROWS)) == []


@pytest.mark.parametrize("name", CONTENTS)
def test_the_next_row_of_a_batch_is_where_reading_goes_on(storage: Storage, add: Add, name: str) -> None:
    file = add(name, CONTENTS[name])
    row = 0
    for batch in read_slice([file], whole(file), storage):
        assert batch.rows.tolist() == list(range(row, row + len(batch.rows)))
        row = batch.next_row
    assert row == ROWS


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_replaced_is_another_file(storage: Storage, add: Add, name: str) -> None:
    file = add(name, CONTENTS[name])
    Path(file.uri).write_bytes(CONTENTS[name])
    os.utime(file.uri, ns=(1, 1))
    with pytest.raises(InputChanged):
        list(read_slice([file], whole(file), storage))


def test_all_formats_are_read_from_an_object_store_as_from_a_disk(s3_bucket: str, tmp_path: Path) -> None:
    storage = open_storage(s3_bucket, Roots([s3_bucket]))
    files = []
    for number, (name, content) in enumerate(CONTENTS.items()):
        info = storage.put(f"{s3_bucket}/ü b/{name}", content)
        files.append(InputFile(file_no=number, uri=info.uri, format="", size=info.size, etag=info.etag))
    for file in files:
        read = [row for cut in slices_of(storage, file) for row in rows_of(storage, [file], cut)]
        assert [(row, int(values["array"])) for _, row, values in read] == [(row, row) for row in range(ROWS)]


@pytest.mark.parametrize("name", CONTENTS)
def test_all_bytes_that_the_storage_was_asked_for_are_counted(storage: Storage, add: Add, name: str) -> None:
    files = [add(f"{number}/{name}", CONTENTS[name]) for number in range(3)]
    counted = CountedFiles(storage)
    seen = [0]
    for batch in read_slice(files, whole(*files), counted):
        assert len(batch.rows)
        seen.append(counted.bytes_read)
    assert seen == sorted(seen)
    size = sum(file.size for file in files)
    # Footers and headers are read before the rows, and small reads fill a buffer: by and large it is all of it once.
    assert size <= counted.bytes_read <= 1.2 * size + 3 * (3 * (128 << 10))
