"""Cells of text files as inputs."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import one, prepared, reasons, tensor, tensors_of

from headrace.contracts.tensors.datatypes import DTYPES

CELLS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.integers(-300, 300).map(lambda number: f" {number}.0 "),
    st.text("0123456789+-.eEx_ nainf", max_size=6),
    st.sampled_from(["true", "FALSE", "yes", "1e400", "--1", "1,5", "0x10", "1_000"]),
)


def read(cell: str, datatype: str) -> float | int | None:
    """Read a cell the slow way; None if it is no such number."""
    dtype = DTYPES[datatype]
    text = cell.strip()
    if "_" in text:
        return None
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                value = float(text)
                return None if math.isfinite(value) and not np.isfinite(dtype.type(value)) else float(dtype.type(value))
        try:
            whole = int(text)
        except ValueError:
            whole = int(float(text)) if float(text).is_integer() else 1 << 80
        return whole if np.iinfo(dtype).min <= whole <= np.iinfo(dtype).max else None
    except (ValueError, OverflowError):
        return None


@given(
    cells=st.lists(CELLS.filter(str.strip), min_size=1, max_size=6),
    datatype=st.sampled_from(["FP32", "FP64", "INT8", "UINT64", "INT64"]),
)
def test_cells_are_read_as_python_reads_them(cells: list[str], datatype: str) -> None:
    rows = prepared(one(cells), tensor(datatype=datatype))
    expected = [read(cell, datatype) for cell in cells]
    assert rows.good.tolist() == [at for at, value in enumerate(expected) if value is not None]
    np.testing.assert_array_equal(tensors_of(rows)["x"], [value for value in expected if value is not None])


def test_one_bad_cell_is_one_bad_row_that_names_column_and_text() -> None:
    table = pa.RecordBatch.from_pydict({"a": ["1", "2", "3"], "b": ["4", "abc", "6"]})
    rows = prepared(table, tensor("a"), tensor("b"))
    assert rows.good.tolist() == [0, 2]
    assert reasons(rows) == {1: "column 'b': 'abc' is no FP32"}


def test_a_cell_with_nothing_in_it_is_a_null() -> None:
    assert reasons(prepared(one(["1", " "]), tensor())).keys() == {1}
    assert prepared(one(["1", ""]), tensor(), on_null="skip").skipped.tolist() == [1]
    assert tensors_of(prepared(one(["1", ""]), tensor(), on_null="fill=-1"))["x"].tolist() == [1, -1]


@pytest.mark.parametrize(("cell", "value"), [("true", True), ("No", False), ("1", True), ("0.0", False), ("t", True)])
def test_words_are_truth_values(cell: str, value: bool) -> None:
    assert tensors_of(prepared(one([cell]), tensor(datatype="BOOL")))["x"].tolist() == [value]


def test_other_words_are_none() -> None:
    assert reasons(prepared(one(["maybe"]), tensor(datatype="BOOL"))) == {0: "column 'x': 'maybe' is no BOOL"}


def test_lists_may_be_json() -> None:
    rows = prepared(one(["[1, 2.5]", "[[1,2]]", "[1,", "[1]", "", "[1, null]"]), tensor(shape=(2,)))
    assert rows.good.tolist() == [0]
    assert tensors_of(rows)["x"].tolist() == [[1.0, 2.5]]
    found = reasons(rows)
    assert found[1] == "column 'x': '[[1,2]]' is no JSON list of FP32"
    assert found[3] == "column 'x' holds 1 value, but the model takes 2"
    assert "is null" in found[4]
    assert "is null" in found[5]


def test_json_may_be_nested_as_the_input_is() -> None:
    assert tensors_of(prepared(one(["[[1,2],[3,4]]"]), tensor(shape=(2, 2))))["x"].tolist() == [[[1, 2], [3, 4]]]


def test_json_for_several_sizes_that_vary_is_nested_so() -> None:
    rows = prepared(one(["[1,2]", "[[1,2,3]]"]), tensor(shape=(-1, -1)))
    assert rows.good.tolist() == [1]
    assert tensors_of(rows)["x"].shape == (1, 1, 3)


def test_whole_numbers_in_json_stay_exact() -> None:
    cell = f"[{2**53 + 1}, -1]"
    assert tensors_of(prepared(one([cell]), tensor(datatype="INT64", shape=(2,))))["x"].tolist() == [[2**53 + 1, -1]]
    assert reasons(prepared(one(["[256]"]), tensor(datatype="UINT8", shape=(1,)))).keys() == {0}


def test_text_stays_text_for_a_model_of_strings() -> None:
    assert tensors_of(prepared(one([" 1 "]), tensor(datatype="BYTES")))["x"].tolist() == [b" 1 "]
