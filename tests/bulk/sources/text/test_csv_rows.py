"""Rows of CSV: the same as Python's csv module finds, wherever blocks and segments end."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.sources.text.csv_cells import CellParser
from headrace.bulk.sources.text.csv_rows import Header, parse_header, splitter
from headrace.bulk.sources.text.pieces import Cutter, Piece, split_lines

WILD = st.text(st.sampled_from('ab,"\n "'), max_size=60).map(str.encode)


def blocks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return (data[start:stop] for start, stop in itertools.pairwise(edges))


def rows(data: bytes, cuts: list[int], limit: int = 1000) -> list[tuple[int, int, bytes, str]]:
    """Return number, line, bytes and problem of each row."""
    return [
        (piece.first_row + at, piece.line(at), piece.row(at), piece.problem)
        for piece in Cutter(splitter(","), limit=limit).pieces(blocks(data, cuts))
        for at in range(piece.rows)
    ]


def by_csv_module(data: bytes) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(data.decode(), newline="")) if row]


@given(WILD, st.lists(st.integers(0, 100)))
def test_rows_are_those_of_the_csv_module_when_all_quotes_are_closed(data: bytes, cuts: list[int]) -> None:
    if splitter(",")(data).quoted:
        return
    found = rows(data, cuts)
    assert [next(csv.reader(io.StringIO(row.decode(), newline=""))) for _, _, row, _ in found] == by_csv_module(data)


@given(WILD, st.lists(st.integers(0, 100)), st.integers(3, 70))
def test_rows_do_not_depend_on_where_blocks_end(data: bytes, cuts: list[int], limit: int) -> None:
    whole = rows(data, [], limit)
    assert rows(data, cuts, limit) == whole
    assert [number for number, *_ in whole] == list(range(len(whole)))


@given(WILD, st.lists(st.integers(0, 100)), st.integers(3, 70))
def test_a_segment_begins_and_ends_where_pieces_do(data: bytes, cuts: list[int], limit: int) -> None:
    pieces = list(Cutter(splitter(","), limit=limit).pieces(blocks(data, cuts)))
    assert sum(piece.size_bytes for piece in pieces) == len(data)
    start = 0
    for piece in pieces:
        again = Cutter(splitter(","), piece.first_row, piece.first_line, limit)
        alone = list(again.pieces([data[start : start + piece.size_bytes]]))
        assert [(one.first_row + at, one.line(at), one.row(at)) for one in alone for at in range(one.rows)] == [
            (piece.first_row + at, piece.line(at), piece.row(at)) for at in range(piece.rows)
        ]
        start += piece.size_bytes


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 200)), st.integers(3, 30))
def test_lines_keep_their_numbers_blank_ones_included(lines: list[bytes], cuts: list[int], limit: int) -> None:
    data = b"\n".join(line.replace(b"\n", b"") for line in lines)
    pieces = Cutter(split_lines, limit=limit).pieces(blocks(data, cuts))
    found = [(piece.line(at), piece.row(at)) for piece in pieces for at in range(piece.rows)]
    expected = [(at + 1, line.rstrip(b"\r")) for at, line in enumerate(data.split(b"\n")) if line.strip(b"\r")]
    assert [line for line, _ in found] == [line for line, _ in expected]
    assert all(row == wanted or len(wanted) >= limit - 1 for (_, row), (_, wanted) in zip(found, expected, strict=True))


def test_a_row_longer_than_the_limit_is_one_bad_row_and_the_rest_is_read() -> None:
    data = b"a\n" + b"x" * 500 + b"\nb\n"
    for cuts in ([], [100], [3, 200, 400], [502, 503]):
        found = rows(data, cuts, 100)
        assert [(number, line, problem[:10]) for number, line, _, problem in found] == [
            (0, 1, ""),
            (1, 2, "the row is"),
            (2, 3, ""),
        ]


def test_a_quote_that_is_never_closed_costs_its_own_line_only() -> None:
    found = rows(b'1,2\n3,"x\n4,5\n6,7\n', [])
    assert [row for _, _, row, problem in found if not problem] == [b"1,2", b"4,5", b"6,7"]
    assert [(line, problem) for _, line, _, problem in found if problem] == [(2, "a quote is not closed")]


def cells(data: bytes, names: str = "ab") -> tuple[list[tuple[object, ...]], dict[int, str]]:
    (piece,) = Cutter(splitter(",")).pieces([data])
    assert isinstance(piece, Piece)
    found = CellParser(Header(tuple(names), ",", 0, 1), tuple(names)).parse(piece)
    return [tuple(row.values()) for row in found.table.to_pylist()], found.bad


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), min_size=1), st.randoms())
def test_cells_round_trip_with_any_quoting_and_line_ends(table: list[list[str]], random: Random) -> None:
    sink = io.StringIO(newline="")
    for row in table:
        # The writer leaves a lone carriage return without quotes, which no reader can tell from a line's end.
        quote_all = "\r" in "".join(row) or random.random() < 0.5
        end = random.choice(["\n", "\r\n", "\n\n"])
        csv.writer(sink, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL, lineterminator=end).writerow(row)
    read, bad = cells(sink.getvalue().encode("utf-8", "surrogatepass"))
    whole = [row for row in table if not any("\ud800" <= char <= "\udfff" for cell in row for char in cell)]
    assert [tuple(cell or "" for cell in row) for row in read] == [tuple(row) for row in whole]
    assert len(bad) == len(table) - len(whole)


@pytest.mark.parametrize(
    ("data", "good", "bad"),
    [
        (b"1,2\n3\n4,5\n", [("1", "2"), ("4", "5")], {1: "1 fields, the header has 2"}),
        (b"1,2\n3,4,5\n\n4,5\n", [("1", "2"), ("4", "5")], {1: "3 fields, the header has 2"}),
        (b"1,\xff\n3,4\n", [("3", "4")], {0: "column 'b' is not UTF-8"}),
        (b"1,2\r3,4\n5,6\n", [("5", "6")], {0: "a carriage return in the middle of the line, or other damage"}),
        (b"1\n2\n", [], {0: "1 fields, the header has 2", 1: "1 fields, the header has 2"}),
        (b',""\n', [(None, "")], {}),
        (b'"a\r\nb",\x00\r\n', [("a\r\nb", "\x00")], {}),
        (b' \n1,"2"3\n', [("1", "23")], {0: "1 fields, the header has 2"}),
    ],
)
def test_a_bad_row_harms_no_other(data: bytes, good: list[tuple[object, ...]], bad: dict[int, str]) -> None:
    assert cells(data) == (good, bad)


@pytest.mark.parametrize(
    ("data", "names", "delimiter"),
    [
        (b"a,b\n", ("a", "b"), ","),
        (b"a;b\n1,2;3\n", ("a", "b"), ";"),
        (b"a\tb\n", ("a", "b"), "\t"),
        (b"a|b|c,d\n", ("a", "b", "c,d"), "|"),
        (b'"a;x;y",b\n', ("a;x;y", "b"), ","),
        (b"\xef\xbb\xbfa,b\r\n", ("a", "b"), ","),
        (b"\n\r\na,b\n", ("a", "b"), ","),
        (b'"a\nb",c\n', ("a\nb", "c"), ","),
        (b"text\n", ("text",), ","),
        ("ü,名\n".encode(), ("ü", "名"), ","),
    ],
)
def test_the_header_names_the_columns_and_tells_the_delimiter(
    data: bytes, names: tuple[str, ...], delimiter: str
) -> None:
    header = parse_header(data + b"rest", "", last=False)
    assert header is not None
    assert (header.names, header.delimiter) == (names, delimiter)
    assert data[: header.size].endswith(b"\n")
    assert header.line == 1 + data[: header.size].count(b"\n")


def test_a_header_that_is_not_complete_is_none() -> None:
    assert parse_header(b"a,b", "", last=False) is None
    assert parse_header(b"\n\n", "", last=True) is None
    assert parse_header(b'a,"b\n', "", last=False) is None
