"""JSON lines as columns: types from a sample, misfits alone, both ways of reading alike."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.sources.projection import project
from headrace.bulk.sources.text.cells import Cells
from headrace.bulk.sources.text.json_parser import JsonParser
from headrace.bulk.sources.text.json_types import ANY_JSON, guess_schema, guess_type, read_type
from headrace.bulk.sources.text.pieces import Cutter, Piece, split_lines

NUMBERS = pa.list_(pa.float64())


def piece_of(*lines: bytes) -> Piece:
    (piece,) = Cutter(split_lines).pieces([b"\n".join(lines) + b"\n"])
    return piece


def parse(schema: pa.Schema, *lines: bytes) -> Cells:
    return JsonParser(schema, project(schema, None, "file")).parse(piece_of(*lines))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([1, 2**63], pa.float64()),
        ([True, False], pa.bool_()),
        (["a", None], pa.string()),
        (["a", "b", 3], pa.string()),
        ([1, 2, "x"], pa.int64()),
        ([1, "x"], ANY_JSON),
        ([1, True], ANY_JSON),
        ([None, None], ANY_JSON),
        ([[], []], ANY_JSON),
        ([{}], ANY_JSON),
        ([[1, 2], [3]], NUMBERS),
        ([[[1], [2.5]], [[]]], pa.list_(NUMBERS)),
        ([[1, "x", 2], [3]], NUMBERS),
        ([["a"], "b", ["c"]], pa.list_(pa.string())),
        ([{"a": 1}, {"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([{"a": None}], ANY_JSON),
    ],
)
def test_a_column_has_the_type_of_most_of_its_values(values: list[Any], kind: pa.DataType) -> None:
    assert guess_type(values) == kind


def test_columns_are_those_of_all_rows_of_the_sample() -> None:
    assert guess_schema([{"a": 1}, {"b": "x"}]).names == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":"x"}', "not like most others: Expected `float`, got `str` - at `$.a`"),
        (b'{"a":true}', "not like most others"),
        (b'{"a":1', "no valid JSON"),
        (b"[1]", "not like most others: Expected `object`, got `array`"),
        (b"5", "not like most others"),
        (b"  ", "no valid JSON"),
        (b'{"a":1}{"a":2}', "no valid JSON"),
        (b'{"a":1},', "no valid JSON"),
        (b'{"b":"\xff"}', "no valid JSON"),
        (b'{"b":"\\ud800"}', "no valid JSON"),
        (b'{"a":1e999}', "out of range"),
        (b"[" * 100_000, "not like most others"),
        (b'{"b":["x"]}', "Expected `str`, got `array` - at `$.b`"),
    ],
)
def test_a_line_that_does_not_fit_is_one_bad_row(line: bytes, reason: str) -> None:
    schema = pa.schema([("a", pa.float64()), ("b", pa.string())])
    found = parse(schema, b'{"a":1,"b":"x"}', line, b'{"a":2.5}')
    assert found.table.to_pylist() == [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": None}]
    assert found.good.tolist() == [0, 2]
    assert list(found.bad) == [1]
    assert reason in found.bad[1]


def test_not_a_number_is_read_as_python_writes_it() -> None:
    schema = pa.schema([("a", NUMBERS)])
    for other in (b'{"a":[1]}', b'{"a":[1],"a":[1]}'):
        values = parse(schema, b'{"a":[NaN,-Infinity]}', other).table.to_pylist()
        assert math.isnan(values[0]["a"][0])
        assert values[0]["a"][1] == -math.inf


def test_values_of_no_one_kind_are_their_json_text() -> None:
    lines = [b'{"a":"x"}', b'{"a":[1, 2]}', b'{"a":7}', b'{"a":null}', b"{}"]
    found = parse(pa.schema([("a", ANY_JSON)]), *lines)
    assert [row["a"] for row in found.table.to_pylist()] == ["x", "[1, 2]", "7", None, None]


VALUES = {
    "i": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False),
    "b": st.booleans(),
    "s": st.text(st.characters(codec="utf-8"), max_size=5),
    "l": st.lists(st.floats(allow_nan=False) | st.none(), max_size=3),
    "d": st.fixed_dictionaries(
        {}, optional={"x": st.integers(0, 9), "y": st.lists(st.text(max_size=2).filter(str.isascii))}
    ),
}
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("b", pa.bool_()),
        ("s", pa.string()),
        ("l", NUMBERS),
        ("d", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])),
    ]
)
FITTING = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in VALUES.items()})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
    max_leaves=4,
)
ANY_ROW = st.dictionaries(st.sampled_from([*VALUES, "z"]), JSON, max_size=4)


@given(st.lists(FITTING, min_size=1, max_size=8))
def test_rows_that_fit_are_read_whole_both_ways(rows: list[dict[str, Any]]) -> None:
    parser = JsonParser(SCHEMA, project(SCHEMA, None, "file"))
    piece = piece_of(*(json.dumps(row).encode() for row in rows))
    for found in (parser.parse(piece), parser._one_by_one(piece)):
        assert found.bad == {}
        assert found.table.equals(pa.RecordBatch.from_pylist(rows, SCHEMA))


@given(st.lists(ANY_ROW, min_size=1, max_size=8))
def test_a_row_is_read_alike_whatever_its_neighbours_are(rows: list[dict[str, Any]]) -> None:
    parser = JsonParser(SCHEMA, project(SCHEMA, None, "file"))
    lines = [json.dumps(row).encode() for row in rows]
    together = parser.parse(piece_of(*lines))
    alone = [parser.parse(piece_of(line)) for line in lines]
    assert set(together.bad) == {at for at, each in enumerate(alone) if each.bad}
    good = [repr(each.table.to_pylist()[0]) for each in alone if not each.bad]
    assert [repr(row) for row in together.table.to_pylist()] == good


@pytest.mark.parametrize(
    ("wanted", "read"),
    [
        (pa.int32(), pa.int64()),
        (pa.float32(), pa.float64()),
        (pa.list_(pa.float32(), 3), NUMBERS),
        (pa.large_list(pa.int8()), pa.list_(pa.int64())),
        (pa.timestamp("us"), None),
        (pa.binary(), None),
        (pa.struct([("a", pa.timestamp("us"))]), None),
    ],
)
def test_wanted_types_are_read_as_what_json_has(wanted: pa.DataType, read: pa.DataType | None) -> None:
    assert read_type(wanted) == read
