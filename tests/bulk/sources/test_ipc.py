"""Arrow IPC files and streams."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, values_of, whole

from headrace.bulk.sources.base import InputUnreadable
from headrace.bulk.sources.formats import source_of
from headrace.bulk.storage.base import Storage

TABLE = pa.table(
    {
        "a": list(range(100)),
        "s": [{"x": i, "y": [float(i)]} for i in range(100)],
        "d": pa.array(["u", "v"] * 50).dictionary_encode(),
    }
)


def file_bytes(table: pa.Table, rows: int = 30) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def stream_bytes(table: pa.Table, rows: int = 30) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def feather_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(table, sink, chunksize=30)
    return sink.getvalue()


def test_record_batches_are_units_and_all_rows_are_read_once(storage: Storage, add: Add) -> None:
    file = add("a.arrow", file_bytes(TABLE))
    cuts = slices_of(storage, file)
    assert [(cut.unit, cut.range_row, cut.rows) for cut in cuts] == [(0, 0, 30), (1, 30, 30), (2, 60, 30), (3, 90, 10)]
    read = [row for cut in cuts for row in rows_of(storage, [file], cut)]
    assert [(row, values["a"]) for _, row, values in read] == [(i, i) for i in range(100)]


@pytest.mark.parametrize("content", [file_bytes(TABLE), stream_bytes(TABLE), feather_bytes(TABLE)])
def test_files_streams_and_feather_have_the_same_rows(storage: Storage, add: Add, content: bytes) -> None:
    file = add("a.feather", content)
    assert values_of(storage, file) == TABLE.to_pylist()
    assert [row for _, row, _ in rows_of(storage, [file], whole(file, row_start=25, rows=50))] == list(range(25, 75))
    assert values_of(storage, file, ["s.y", "d"])[3] == {"s.y": [3.0], "d": "v"}


def test_a_stream_is_one_unit(storage: Storage, add: Add) -> None:
    (cut,) = slices_of(storage, add("a.arrow", stream_bytes(TABLE)))
    assert (cut.rows, cut.byte_stop) == (-1, -1)


def test_a_file_without_rows_has_no_units_and_no_rows(storage: Storage, add: Add) -> None:
    file = add("a.arrow", file_bytes(TABLE.slice(0, 0)))
    assert (slices_of(storage, file), values_of(storage, file)) == ([], [])


@pytest.mark.parametrize("content", [b"", b"no", b"not arrow at all", file_bytes(TABLE)[:-50], b"FEA1" + b"\0" * 50])
def test_a_truncated_file_is_unreadable_and_named(storage: Storage, add: Add, content: bytes) -> None:
    file = add("a.arrow", content)
    with pytest.raises(InputUnreadable, match=r"a\.arrow is "):
        source_of(file.uri).schema(file, storage)
    assert [bad.row for bad in bad_of(storage, file)] == [-1]


def test_rows_before_the_end_of_a_truncated_stream_are_delivered(storage: Storage, add: Add) -> None:
    file = add("a.arrow", stream_bytes(TABLE)[:-100])
    read = rows_of(storage, [file], whole(file))
    assert [row for _, row, _ in read] == list(range(90))
    assert [bad.row for bad in bad_of(storage, file)] == [-1]


def test_columns_of_one_name_are_refused_by_name(storage: Storage, add: Add) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "more than one column named 'a'" in bad_of(storage, add("a.arrow", file_bytes(table)))[0].message
