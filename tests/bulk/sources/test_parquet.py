"""Parquet: row groups, slices, projection, damage."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bulk.sources.reads import Add, bad_of, parquet_bytes, rows_of, slices_of, values_of, whole

from headrace.bulk.sources.base import InputUnreadable, MissingColumn
from headrace.bulk.sources.formats import source_of
from headrace.bulk.sources.slices import Wanted, read_slice, refuse
from headrace.bulk.storage.base import Storage
from headrace.results_store.jobs.records import InputFile, Slice

NUMBERS = pa.table({"a": list(range(100)), "b": [str(i) for i in range(100)]})


def test_row_groups_are_units_and_all_rows_are_read_once(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(NUMBERS, 30))
    cuts = slices_of(storage, file)
    assert [(cut.unit, cut.range_row, cut.rows) for cut in cuts] == [(0, 0, 30), (1, 30, 30), (2, 60, 30), (3, 90, 10)]
    read = [row for cut in cuts for row in rows_of(storage, [file], cut)]
    assert [(row, values["a"]) for _, row, values in read] == [(i, i) for i in range(100)]


@pytest.mark.parametrize(("start", "rows"), [(0, 1), (29, 2), (30, 30), (37, 50), (95, 5), (0, 100), (99, -1)])
def test_a_slice_has_the_rows_it_names_wherever_it_begins(storage: Storage, add: Add, start: int, rows: int) -> None:
    file = add("a.parquet", parquet_bytes(NUMBERS, 30))
    stop = start + rows if rows >= 0 else 100
    read = rows_of(storage, [file], whole(file, row_start=start, rows=rows))
    assert [(row, values["a"]) for _, row, values in read] == [(i, i) for i in range(start, stop)]


def test_a_slice_inside_one_row_group_passes_over_the_rows_before_it(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(NUMBERS, 30))
    part = Slice(file_no=file.file_no, unit=1, units=2, range_row=30, row_start=41, rows=30)
    assert [row for _, row, _ in rows_of(storage, [file], part)] == list(range(41, 71))


def test_columns_are_read_in_the_order_asked_for(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(NUMBERS))
    assert list(values_of(storage, file, ["b", "a"])[0]) == ["b", "a"]


def test_a_field_inside_a_struct_is_a_column_under_its_dotted_path(storage: Storage, add: Add) -> None:
    table = pa.table({"x": [{"image": [1.5, 2.5], "id": 7}, {"image": [3.5], "id": 8}], "x.y": [1, 2]})
    file = add("a.parquet", parquet_bytes(table))
    assert values_of(storage, file, ["x.image", "x.y"])[1] == {"x.image": [3.5], "x.y": 2}


def test_a_missing_column_is_named_with_its_closest_match(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(pa.table({"image": [1], "label": [2]})))
    with pytest.raises(MissingColumn, match="has no column 'imege'; did you mean 'image'"):
        list(read_slice([file], whole(file), storage, Wanted(columns=("imege",)), refuse))


def test_a_file_without_rows_has_no_units_and_no_rows(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(NUMBERS.slice(0, 0)))
    assert slices_of(storage, file) == []
    assert values_of(storage, file) == []


def test_columns_of_one_name_are_refused_by_name(storage: Storage, add: Add) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    file = add("a.parquet", parquet_bytes(table))
    with pytest.raises(InputUnreadable, match="more than one column named 'a'"):
        source_of(file.uri).schema(file, storage)
    assert "more than one column named 'a'" in bad_of(storage, file)[0].message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", parquet_bytes(NUMBERS)[:-20]])
def test_a_truncated_file_is_unreadable_and_named(storage: Storage, add: Add, content: bytes) -> None:
    file = add("broken ü.parquet", content)
    for act in (lambda: source_of(file.uri).schema(file, storage), lambda: slices_of(storage, file)):
        with pytest.raises(InputUnreadable, match=r"broken ü\.parquet is no readable Parquet file"):
            act()
    with pytest.raises(InputUnreadable, match="broken ü"):
        list(read_slice([file], whole(file), storage, on_unreadable=refuse))


def test_a_damaged_row_group_ends_its_file_and_the_next_file_follows(storage: Storage, add: Add) -> None:
    table = pa.table({"a": [f"{i * 7919 % 1000003}" for i in range(30_000)]})
    content = bytearray(parquet_bytes(table, 10_000))
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    files = [add("a.parquet", bytes(content)), add("b.parquet", parquet_bytes(pa.table({"a": ["x"]})))]
    read = rows_of(storage, files, whole(*files))
    assert [row for number, row, _ in read if number == files[0].file_no][:10_000] == list(range(10_000))
    assert read[-1] == (files[1].file_no, 0, {"a": "x"})
    (entry,) = bad_of(storage, *files)
    assert (entry.file_no, entry.row, entry.stage) == (files[0].file_no, -1, "read")


def test_memory_stays_flat_over_two_thousand_row_groups(storage: Storage, add: Add) -> None:
    table = pa.table({"a": pa.array(range(200_000)), "v": pa.array([b"x" * 100] * 200_000)})
    file = add("a.parquet", parquet_bytes(table, 100))
    del table
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    for batch in read_slice([file], whole(file), storage):
        most = max(most, pa.total_allocated_bytes() - before)
        seen += len(batch.rows)
    assert seen == 200_000
    assert most < 8 << 20


def most_held(storage: Storage, file: InputFile) -> int:
    """Return the most that Arrow and Python hold while a file is read, in bytes."""
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    try:
        for _ in read_slice([file], whole(file), storage):
            held = pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0]
            most = max(most, held)
    finally:
        tracemalloc.stop()
    return most


def test_no_row_group_of_a_wide_table_is_held_as_a_whole(storage: Storage, add: Add) -> None:
    values = np.random.default_rng(0).random((50, 200_000))
    table = pa.table({f"c{number}": column for number, column in enumerate(values)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=len(table), use_dictionary=False, data_page_size=64 << 10)
    file = add("a.parquet", sink.getvalue())
    del sink, table, values
    assert file.size > 70 << 20
    # A page of each column, what was fetched of each, and a batch: no more if the row group were ten times as large.
    assert most_held(storage, file) < file.size // 2


def test_no_row_group_of_few_distinct_values_is_decoded_as_a_whole(storage: Storage, add: Add) -> None:
    columns = {f"c{number}": pa.array([bytes([number]) * 400] * 2_000) for number in range(100)}
    file = add("a.parquet", parquet_bytes(pa.table(columns)))  # 80 MB when it is decoded
    assert file.size < 1 << 20
    assert most_held(storage, file) < 40 << 20


def test_types_are_kept(storage: Storage, add: Add) -> None:
    table = pa.table(
        {
            "fixed": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
            "dictionary": pa.array(["a", "b"]).dictionary_encode(),
            "time": pa.array([1, 2], pa.timestamp("us", "Europe/Berlin")),
            "decimal": pa.array([1, 2]).cast(pa.decimal128(38, 2)),
            "large": pa.array(["a", None], pa.large_string()),
            "half": pa.array(np.array([1, 2], np.float16)),
            "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        }
    )
    file = add("a.parquet", parquet_bytes(table))
    (batch,) = read_slice([file], whole(file), storage)
    assert batch.table.schema == table.schema
    assert pa.Table.from_batches([batch.table]).equals(table)
