"""Hive partitions: parts of the path as columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tests.bulk.sources.reads import Add, flat, parquet_bytes, whole

from headrace.bulk.sources.base import InputUnreadable
from headrace.bulk.sources.partitions import partitions_of
from headrace.bulk.sources.slices import Wanted, read_slice, refuse, schema_of
from headrace.bulk.storage.base import Storage


@pytest.mark.parametrize(
    ("uri", "folder", "values"),
    [
        ("/in/day=3/a.parquet", "/in", {"day": 3}),
        ("/in/day=2026-11-30/city=S%C3%A3o%20Paulo/a.csv", "/in/", {"day": "2026-11-30", "city": "São Paulo"}),
        ("s3://b/in/x=__HIVE_DEFAULT_PARTITION__/a.csv", "s3://b/in", {"x": None}),
        ("/in/day=3/a.csv", "/in/day=3", {}),
        ("/in/day=3/a.csv", "/in/*/*.csv", {"day": 3}),
        ("/in/day=3/a.csv", "/in/day=3/a.csv", {}),
        ("/in/a=b.csv", "/in", {}),
        ("/in/plain/=x/a.csv", "/in", {}),
        ("/in/n=123456789012345678901/a.csv", "/in", {"n": "123456789012345678901"}),
        ("/in/day=3/a.csv", "/other", {}),
        ("/in/day=3/a.csv", "/i", {}),
    ],
)
def test_pairs_in_the_path_below_a_folder_are_columns(uri: str, folder: str, values: dict[str, object]) -> None:
    assert partitions_of(uri, ["/nowhere", folder]).values == values


def test_partitions_are_columns_of_every_row_in_the_order_asked_for(storage: Storage, add: Add, tmp_path: Path) -> None:
    content = parquet_bytes(pa.table({"a": [1, 2]}))
    files = [add("in/day=1/k=x/0.parquet", content), add("in/day=2/k=y/0.parquet", content)]
    folders = (str(tmp_path / "in"),)
    read = flat(read_slice(files, whole(*files), storage, Wanted(columns=("k", "a", "day"), folders=folders)))
    assert [list(values.items()) for _, _, values in read][1:3] == [
        [("k", "x"), ("a", 2), ("day", 1)],
        [("k", "y"), ("a", 1), ("day", 2)],
    ]
    everything = flat(read_slice(files, whole(*files), storage, Wanted(folders=folders)))
    assert everything[0][2] == {"a": 1, "day": 1, "k": "x"}
    alone = flat(read_slice(files, whole(*files), storage, Wanted(columns=("day",), folders=folders)))
    assert [values for _, _, values in alone] == [{"day": 1}, {"day": 1}, {"day": 2}, {"day": 2}]
    assert schema_of(files[0], storage, Wanted(folders=folders)).names == ["a", "day", "k"]


def test_a_partition_of_the_name_of_a_column_is_refused_by_name(storage: Storage, add: Add, tmp_path: Path) -> None:
    file = add("in/a=1/0.parquet", parquet_bytes(pa.table({"a": [1]})))
    wanted = Wanted(folders=(str(tmp_path / "in"),))
    with pytest.raises(InputUnreadable, match="has a column 'a' and a folder 'a=…' in its path"):
        schema_of(file, storage, wanted)
    with pytest.raises(InputUnreadable, match="has a column 'a' and a folder"):
        list(read_slice([file], whole(file), storage, wanted, refuse))
