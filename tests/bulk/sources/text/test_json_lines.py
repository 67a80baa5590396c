"""Files of JSON lines: segments, samples, slices, damage and compression."""

from __future__ import annotations

import gzip
import json
from random import Random

import pyarrow as pa
import pytest
from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, values_of, whole

from headrace.bulk.sources.base import InputUnreadable, MissingColumn
from headrace.bulk.sources.formats import source_of
from headrace.bulk.sources.schemas import with_floats
from headrace.bulk.sources.slices import Wanted, read_slice, refuse
from headrace.bulk.sources.text import segments
from headrace.bulk.sources.text.json_lines import JsonLines
from headrace.bulk.storage.base import Storage


def lines_of(rows: int) -> bytes:
    random = Random(0)
    return b"".join(
        json.dumps({"id": row, "x": [random.random() for _ in range(8)], "text": f"ü {row}\n"}).encode() + b"\n"
        for row in range(rows)
    )


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
def test_every_row_is_read_once_whatever_the_cuts(
    storage: Storage, add: Add, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    content = start + lines_of(20_000)
    file = add("a.jsonl", content)
    monkeypatch.setattr(segments.segments, "__defaults__", (1 << 20,))
    cuts = slices_of(storage, file)
    assert len(cuts) > 2
    read = [row for cut in cuts for row in rows_of(storage, [file], cut)]
    assert [number for _, number, _ in read] == list(range(20_000))
    rows = content.removeprefix(start).splitlines()
    assert [values for *_, values in read] == [json.loads(line) for line in rows]


def test_a_bad_line_is_one_bad_row_with_its_line_and_text(storage: Storage, add: Add) -> None:
    file = add("a.ndjson", b'{"a":1}\n\n{"a":2}\n{"a":"x"}\n{"a":\n{"a":3}')
    assert values_of(storage, file) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [(bad.row, bad.line, bad.input) for bad in bad_of(storage, file)] == [(2, 4, b'{"a":"x"}'), (3, 5, b'{"a":')]


def test_a_line_longer_than_a_block_is_read(storage: Storage, add: Add) -> None:
    numbers = [float(number) for number in range(400_000)]
    file = add("a.jsonl", json.dumps({"a": numbers}).encode() + b'\n{"a":[1.0]}\n')
    assert file.size > 2 << 20
    assert values_of(storage, file) == [{"a": numbers}, {"a": [1.0]}]


def test_a_line_longer_than_the_limit_is_one_bad_row(storage: Storage, add: Add) -> None:
    file = add("a.jsonl", b'{"a":1}\n{"a":"' + b"x" * (3 << 20) + b'"}\n{"a":2}\n')
    found = list(JsonLines(limit=1 << 20).read(file, whole(file), storage, None))
    assert [row for batch in found for row in batch.table.to_pylist()] == [{"a": 1}, {"a": 2}]
    ((bad,),) = [batch.bad for batch in found if batch.bad]
    assert (bad.row, bad.line, bad.message, len(bad.input)) == (1, 2, "the row is longer than 1 MB", 64 << 10)
    assert [unit.rows for unit in JsonLines(limit=1 << 20).units(file, storage)] == [3]


def test_numbers_that_are_whole_at_first_may_be_real_in_the_middle(storage: Storage, add: Add) -> None:
    rows = [b'{"a":0}\n'] * 100_000 + [b'{"a":0.5}\n'] * 100_000
    file = add("a.jsonl", b"".join(rows))
    assert source_of(file.uri).schema(file, storage).field("a").type == pa.float64()
    assert bad_of(storage, file) == []


def test_a_column_that_a_model_takes_as_real_numbers_is_read_as_such(storage: Storage, add: Add) -> None:
    rows = [b'{"a":0}\n'] * 300_000
    rows[100_000] = b'{"a":0.5}\n'
    file = add("a.jsonl", b"".join(rows))
    guess = source_of(file.uri).schema(file, storage)
    assert [bad.row for bad in bad_of(storage, file)] == [100_000]
    wanted = Wanted(columns=("a",), schema=with_floats(guess, ["a"]))
    assert sum(len(batch.rows) for batch in read_slice([file], whole(file), storage, wanted)) == 300_000


def test_a_column_that_is_null_at_first_is_json_text(storage: Storage, add: Add) -> None:
    file = add("a.jsonl", b'{"a":null}\n' * 50_000 + b'{"a":7}\n' + b'{"a":null}\n' * 20_000)
    file_values = values_of(storage, file)
    assert (file_values[0], file_values[50_000]) == ({"a": None}, {"a": "7"})


def test_a_field_inside_an_object_is_a_column_under_its_dotted_path(storage: Storage, add: Add) -> None:
    file = add("a.jsonl", b'{"x":{"image":[1,2],"id":3},"y":4}\n')
    assert values_of(storage, file, ["y", "x.image"]) == [{"y": 4, "x.image": [1.0, 2.0]}]


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n"])
def test_a_file_without_a_column_is_no_error(storage: Storage, add: Add, content: bytes) -> None:
    file = add("a.jsonl", content)
    assert values_of(storage, file, ["a"]) == [{"a": None}] * content.count(b"{")
    assert source_of(file.uri).schema(file, storage).names == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a":1},\n{"a":2}]', "is a JSON array"),
        (b'{\n"a":1\n}\n', "has no JSON object in any of its first lines"),
        (b"a,b\n1,2\n", "has no JSON object"),
        (b"\x00\x01\xff" * 10, "has no JSON object"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(storage: Storage, add: Add, content: bytes, message: str) -> None:
    file = add("a.json", content)
    with pytest.raises(InputUnreadable, match=rf"a\.json .*{message}"):
        source_of(file.uri).schema(file, storage)
    assert [entry.row for entry in bad_of(storage, file)] == [-1]


def test_a_missing_column_is_named(storage: Storage, add: Add) -> None:
    file = add("a.jsonl", b'{"text":"x"}\n')
    with pytest.raises(MissingColumn, match="no column 'texts'; did you mean 'text'"):
        list(read_slice([file], whole(file), storage, Wanted(columns=("texts",)), refuse))


def test_a_compressed_file_has_the_same_rows(storage: Storage, add: Add) -> None:
    content = lines_of(5_000)
    file, plain = add("a.jsonl.gz", gzip.compress(content)), add("a.jsonl", content)
    assert values_of(storage, file) == values_of(storage, plain)
    cut = add("b.jsonl.gz", gzip.compress(content)[:-200])
    read = values_of(storage, cut)
    assert read == values_of(storage, plain)[: len(read)]
    assert len(read) > 4_000
    assert [bad.row for bad in bad_of(storage, cut)] == [-1]
