"""Slices over several files: order, bounds, files that can't be read, schemas that differ."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from tests.bulk.sources.reads import Add, bad_of, parquet_bytes, rows_of, whole

from headrace.bulk.sources.base import InputUnreadable, MissingColumn, SchemaChanged
from headrace.bulk.sources.schemas import check_same_schema, is_like
from headrace.bulk.sources.slices import Wanted, count_rows, read_slice, refuse
from headrace.bulk.storage.base import InputMissing, Storage


def test_rows_of_all_files_follow_in_order_whatever_their_formats(storage: Storage, add: Add) -> None:
    files = [
        add("a.csv", b"a\n1\n2\n"),
        add("b.parquet", parquet_bytes(pa.table({"a": ["3"]}))),
        add("c.csv", b"a\n"),
        add("d.jsonl", b'{"a":"4"}\n'),
    ]
    assert [(number, row, values["a"]) for number, row, values in rows_of(storage, files, whole(*files))] == [
        (0, 0, "1"),
        (0, 1, "2"),
        (1, 0, "3"),
        (3, 0, "4"),
    ]


@pytest.mark.parametrize(("start", "rows", "read"), [(1, -1, "bcde"), (2, 2, "cd"), (0, 3, "abc"), (0, 0, "")])
def test_a_slice_begins_in_its_first_file_and_ends_after_its_rows(
    storage: Storage, add: Add, start: int, rows: int, read: str
) -> None:
    files = [add("a.csv", b"x\na\nb\nc\n"), add("b.csv", b"x\nd\ne\n")]
    found = rows_of(storage, files, whole(*files, row_start=start, rows=rows))
    assert "".join(values["x"] for _, _, values in found) == read


def test_bad_rows_count_among_the_rows_of_a_slice(storage: Storage, add: Add) -> None:
    files = [add("a.csv", b"x,y\na,1\nb\nc,1\n"), add("b.csv", b"x,y\nd,1\ne,1\n")]
    part = whole(*files, rows=4)
    assert [values["x"] for _, _, values in rows_of(storage, files, part)] == ["a", "c", "d"]
    assert [(bad.file_no, bad.row, bad.line) for bad in bad_of(storage, *files, part=part)] == [(0, 1, 3)]


def test_a_file_that_can_not_be_read_is_one_entry_and_the_next_follows(storage: Storage, add: Add) -> None:
    files = [add("a.parquet", b"broken"), add("b.parquet", parquet_bytes(pa.table({"a": [1]})))]
    batches = list(read_slice(files, whole(*files), storage))
    assert [(batch.file_no, len(batch.rows), [bad.row for bad in batch.bad]) for batch in batches] == [
        (0, 0, [-1]),
        (1, 1, []),
    ]
    with pytest.raises(InputUnreadable, match=r"a\.parquet is no readable Parquet file"):
        list(read_slice(files, whole(*files), storage, on_unreadable=refuse))


@pytest.mark.parametrize(("at_most", "rows"), [(0, 0), (2, 2), (3, 3), (10, 3)])
def test_rows_of_a_compressed_file_are_counted_as_far_as_needed(
    storage: Storage, add: Add, at_most: int, rows: int
) -> None:
    file = add("a.csv.gz", gzip.compress(b"x,y\na,1\nbad\nc,1\n"))
    assert count_rows(file, storage, at_most) == rows


def test_an_error_of_the_storage_ends_the_slice(storage: Storage, add: Add) -> None:
    files = [add("a.csv", b"a\n1\n"), add("b.csv", b"a\n1\n")]
    Path(files[0].uri).unlink()
    with pytest.raises(InputMissing):
        list(read_slice(files, whole(*files), storage))


def test_all_tables_of_a_slice_have_one_schema(storage: Storage, add: Add) -> None:
    files = [
        add("a.parquet", parquet_bytes(pa.table({"a": pa.array([1], pa.int64()), "b": pa.array([1.5])}))),
        add("b.parquet", parquet_bytes(pa.table({"b": pa.array([2.5], pa.float32()), "a": pa.array([2], pa.int32())}))),
        add("c.parquet", parquet_bytes(pa.table({"a": pa.array([3]), "b": pa.array([3.5]), "more": ["x"]}))),
    ]
    batches = list(read_slice(files, whole(*files), storage, Wanted(columns=("a", "b"))))
    assert {batch.table.schema for batch in batches} == {pa.schema([("a", pa.int64()), ("b", pa.float64())])}
    assert [row for batch in batches for row in batch.table.to_pylist()] == [
        {"a": 1, "b": 1.5},
        {"a": 2, "b": 2.5},
        {"a": 3, "b": 3.5},
    ]


def test_the_types_of_the_job_are_those_of_every_slice(storage: Storage, add: Add) -> None:
    file = add("a.parquet", parquet_bytes(pa.table({"a": pa.array([1], pa.int64())})))
    wanted = Wanted(columns=("a",), schema=pa.schema([("a", pa.int32())]))
    (batch,) = read_slice([file], whole(file), storage, wanted)
    assert batch.table.schema.field("a").type == pa.int32()


def test_a_value_that_does_not_fit_the_type_of_the_first_file_is_said_by_name(storage: Storage, add: Add) -> None:
    files = [
        add("a.parquet", parquet_bytes(pa.table({"a": pa.array([1], pa.int8())}))),
        add("b.parquet", parquet_bytes(pa.table({"a": pa.array([1000], pa.int64())}))),
    ]
    with pytest.raises(SchemaChanged, match=r"b\.parquet has column 'a' as int64, and not all of it fits into int8"):
        list(read_slice(files, whole(*files), storage, on_unreadable=refuse))


FIRST = pa.schema([("a", pa.int32()), ("text", pa.string()), ("v", pa.list_(pa.float32(), 3))])


def test_files_may_have_other_columns_and_other_widths() -> None:
    other = pa.schema(
        [("new", pa.null()), ("v", pa.list_(pa.float64())), ("text", pa.large_string()), ("a", pa.int64())]
    )
    check_same_schema(FIRST, other, ["a", "text", "v"], "b.parquet")


def test_another_type_of_a_needed_column_is_named_with_file_and_both_types() -> None:
    other = pa.schema([("a", pa.string()), ("text", pa.int8())])
    with pytest.raises(SchemaChanged, match=r"b\.parquet has column 'a' as string, the first file has it as int32"):
        check_same_schema(FIRST, other, ["a"], "b.parquet")
    with pytest.raises(MissingColumn, match=r"b\.parquet has no column 'v'"):
        check_same_schema(FIRST, other, ["v"], "b.parquet")
    check_same_schema(FIRST, other, [], "b.parquet")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (pa.int8(), pa.uint64(), True),
        (pa.float16(), pa.float64(), True),
        (pa.int64(), pa.float64(), False),
        (pa.string(), pa.dictionary(pa.int8(), pa.string()), True),
        (pa.binary(), pa.binary(3), True),
        (pa.string(), pa.binary(), False),
        (pa.list_(pa.int8()), pa.list_(pa.int64(), 4), True),
        (pa.list_(pa.int8()), pa.int8(), False),
        (pa.null(), pa.string(), True),
        (pa.timestamp("us"), pa.timestamp("ns"), True),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int64())]), True),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), False),
    ],
)
def test_types_are_alike_when_values_of_both_can_be_one_column(
    one: pa.DataType, other: pa.DataType, alike: bool
) -> None:
    assert is_like(one, other) is alike
    assert is_like(other, one) is alike
