"""CSV files: segments, slices, headers, damage and compression."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from msgspec.structs import replace
from tests.bulk.sources.reads import Add, bad_of, rows_of, slices_of, values_of, whole

from headrace.bulk.sources.base import InputUnreadable, MissingColumn
from headrace.bulk.sources.formats import source_of
from headrace.bulk.sources.slices import Wanted, read_slice, refuse
from headrace.bulk.sources.text import segments
from headrace.bulk.storage.base import Storage


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue().to_pybytes())


def table_of(rows: int, seed: int = 0) -> bytes:
    """Return a table of which some cells have quotes, delimiters and newlines."""
    random, sink = Random(seed), io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["id", "text", "number"])
    for row in range(rows):
        text = "".join(random.choices(["word", " ", ",", '"', "\n", "\r\n", "ü", "\n\n"], k=random.randrange(30)))
        writer.writerow([row, text, random.random()])
    return sink.getvalue().encode()


@pytest.mark.parametrize("end", [b"", b"\n\n\n"])
def test_every_row_is_read_once_whatever_the_cuts(
    storage: Storage, add: Add, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    content = table_of(60_000) + end
    file = add("ünd leer.csv", content)
    monkeypatch.setattr(segments.segments, "__defaults__", (1 << 20,))
    cuts = slices_of(storage, file)
    assert len(cuts) > 2
    read = [row for cut in cuts for row in rows_of(storage, [file], cut)]
    expected = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [number for _, number, _ in read] == list(range(60_000))
    assert [{name: cell or "" for name, cell in values.items()} for _, _, values in read] == expected
    assert sum(cut.byte_stop - cut.byte_start for cut in cuts) == len(content) - len(b"id,text,number\r\n")


def test_a_slice_may_begin_and_end_within_segments(storage: Storage, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    file = add("a.csv", table_of(60_000))
    monkeypatch.setattr(segments.segments, "__defaults__", (1 << 20,))
    first, second, *_ = slices_of(storage, file)
    both = replace(first, units=2, byte_stop=second.byte_stop, row_start=first.rows - 5, rows=10)
    assert [row for _, row, _ in rows_of(storage, [file], both)] == list(range(first.rows - 5, first.rows + 5))


def test_bad_rows_are_named_by_number_and_line_in_every_segment(
    storage: Storage, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["a,b", ""] + [f'{row},"x\n\ny"' if row % 7 else f"{row},x" for row in range(300_000)]
    lines[-3] = "only one"
    content = "\n".join(lines).encode()
    file = add("a.csv", content)
    monkeypatch.setattr(segments.segments, "__defaults__", (1 << 20,))
    bad = [each for cut in slices_of(storage, file) for each in bad_of(storage, file, part=cut)]
    assert [(each.row, each.stage, each.input) for each in bad] == [(299_997, "read", b"only one")]
    assert content.split(b"\n")[bad[0].line - 1] == b"only one"
    assert [each.line for each in bad_of(storage, file)] == [bad[0].line]


def test_a_late_cell_of_another_type_stays_a_string(storage: Storage, add: Add) -> None:
    file = add("a.csv", b"a,b\n" + b"1,\n" * 200_000 + b"abc,7\n")
    read = values_of(storage, file)
    assert len(read) == 200_001
    assert (read[0], read[-1]) == ({"a": "1", "b": None}, {"a": "abc", "b": "7"})


def test_only_columns_that_are_wanted_are_delivered_in_order(storage: Storage, add: Add) -> None:
    file = add("a.tsv", b"a\tb\tc,d\n1\t2\t3\n")
    assert values_of(storage, file, ["c,d", "a"]) == [{"c,d": "3", "a": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b,a\n1,2,3\n", "more than one column named 'a'"),
        (b"a,b\r1,2\r3,4\r", "carriage return only"),
        ("a,b\n".encode("utf-16"), "is UTF-16"),
        (b"\xffa,b\n", "has a header line that can't be read"),
    ],
)
def test_a_file_without_a_proper_header_is_refused_by_name(
    storage: Storage, add: Add, content: bytes, message: str
) -> None:
    file = add("bad.csv", content)
    for act in (lambda: source_of(file.uri).schema(file, storage), lambda: slices_of(storage, file)):
        with pytest.raises(InputUnreadable, match=rf"bad\.csv .*{message}"):
            act()
    assert [entry.row for entry in bad_of(storage, file)] == [-1]


def test_a_header_alone_is_no_row(storage: Storage, add: Add) -> None:
    for content in (b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n"):
        file = add("a.csv", content)
        assert slices_of(storage, file) == []
        assert values_of(storage, file) == []
        assert source_of(file.uri).schema(file, storage).names == ["a", "b"]


def test_a_missing_column_is_named(storage: Storage, add: Add) -> None:
    file = add("a.csv", b"text;label\nx;1\n")
    with pytest.raises(MissingColumn, match="no column 'texts'; did you mean 'text'"):
        list(read_slice([file], whole(file), storage, Wanted(columns=("texts",)), refuse))


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_compressed_file_is_one_unit_with_the_same_rows(
    storage: Storage, add: Add, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    content = table_of(20_000)
    file = add(f"a.csv.{suffix}", pack(content))
    (cut,) = slices_of(storage, file)
    assert cut.rows == -1
    plain = add("a.csv", content)
    expected = [(row, values) for _, row, values in rows_of(storage, [plain], whole(plain))]
    assert [(row, values) for _, row, values in rows_of(storage, [file], cut)] == expected
    part = whole(file, row_start=19_000, rows=7)
    assert [row for _, row, _ in rows_of(storage, [file], part)] == list(range(19_000, 19_007))


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
def test_rows_before_the_end_of_a_truncated_archive_are_delivered(
    storage: Storage, add: Add, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    content = table_of(50_000)
    packed = pack(content)
    file = add(f"a.csv.{suffix}", packed[: len(packed) // 2])
    read = rows_of(storage, [file], whole(file))
    assert 5_000 < len(read) < 50_000
    assert [row for _, row, _ in read] == list(range(len(read)))
    (entry,) = bad_of(storage, file)
    assert entry.row == -1
    assert "no readable CSV file: Truncated" in entry.message


def test_what_is_no_archive_is_unreadable(storage: Storage, add: Add) -> None:
    file = add("a.csv.gz", b"a,b\n1,2\n")
    with pytest.raises(InputUnreadable, match=r"a\.csv\.gz is no readable CSV file"):
        source_of(file.uri).schema(file, storage)


def test_memory_stays_flat_over_a_large_file(storage: Storage, add: Add, tmp_path: Path) -> None:
    file = add("a.csv", b"a,b\n" + b"1234567890,abcdefghijklmnopqrstuvwxyz\n" * 1_000_000)
    before, most, seen = pa.total_allocated_bytes(), 0, 0
    for batch in read_slice([file], whole(file), storage):
        most = max(most, pa.total_allocated_bytes() - before)
        seen += len(batch.rows)
    assert seen == 1_000_000
    assert most < 8 << 20
