"""Damaged files of every format: rows, bad rows and one entry, whatever the damage; never another error or a crash."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from tests.bulk.sources.reads import Add, bad_of, parquet_bytes, rows_of, slices_of, whole
from tests.bulk.sources.test_every_source import CONTENTS
from tests.bulk.sources.test_ipc import file_bytes, stream_bytes

from headrace.bulk.sources.base import InputUnreadable
from headrace.bulk.storage.base import Storage

TABLE = pa.table(
    {"a": range(500), "t": [f"ü{row}" for row in range(500)], "v": [[float(row)] * (row % 5) for row in range(500)]}
)
FILES = {
    **{name: content for name, content in CONTENTS.items() if name not in ("a.parquet", "a.arrow")},
    "a.parquet": parquet_bytes(TABLE, 100),
    "a.arrow": file_bytes(TABLE, 100),
    "b.arrow": stream_bytes(TABLE, 100),
}


def damaged(content: bytes, random: Random) -> bytes:
    found = bytearray(content)
    for _ in range(random.choice([0, 1, 1, 3, 20])):
        found[random.randrange(len(found))] = random.randrange(256)
    return bytes(found[: random.randrange(len(found) + 1)] if random.random() < 0.3 else found)


@pytest.mark.parametrize("name", FILES)
def test_whatever_the_damage_rows_and_entries_come_of_it(storage: Storage, add: Add, name: str) -> None:
    random = Random(name)
    for _ in range(40):
        file = add(name, damaged(FILES[name], random))
        read = rows_of(storage, [file], whole(file))
        numbers = [row for _, row, _ in read]
        bad = [each.row for each in bad_of(storage, file)]
        assert sorted({*numbers, *bad}) == sorted([*numbers, *bad])
        assert numbers == sorted(numbers)
        with suppress(InputUnreadable):
            slices_of(storage, file)


def broken_text(rows: int, at: int) -> pa.Table:
    """Return strings of which one is not UTF-8; pyarrow writes it without a word."""
    values = [b"text"] * rows
    values[at] = b"te\xffxt"
    return pa.table({"t": pa.array(values, pa.binary()).view(pa.string()), "n": range(rows)})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_string_that_is_not_utf8_is_one_bad_row(storage: Storage, add: Add, name: str) -> None:
    table = broken_text(50, 17)
    file = add(name, parquet_bytes(table) if name == "a.parquet" else file_bytes(table))
    assert [row for _, row, _ in rows_of(storage, [file], whole(file))] == [row for row in range(50) if row != 17]
    (bad,) = bad_of(storage, file)
    assert (bad.row, bad.stage) == (17, "read")
    assert "column 't' is damaged" in bad.message


def test_offsets_that_do_not_fit_end_the_file(storage: Storage, add: Add) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 900_000, 3], np.int32).tobytes())
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    file = add("a.arrow", file_bytes(pa.table({"t": column})))
    read = rows_of(storage, [file], whole(file))
    assert [values for _, _, values in read] in ([], [{"t": "a"}])
    assert bad_of(storage, file)
