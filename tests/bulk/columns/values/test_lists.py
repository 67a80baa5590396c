"""Lists, nested ones and those of varying length as inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import one, prepared, reasons, tensor, tensors_of

from headrace.bulk.columns.values.layout import layout_of

NUMBERS = st.lists(st.integers(-9, 9), max_size=4)


@given(rows=st.lists(st.none() | NUMBERS, max_size=8), cut=st.integers(0, 8), large=st.booleans())
def test_lists_of_the_right_length_are_rows_and_others_are_bad(
    rows: list[list[int] | None], cut: int, large: bool
) -> None:
    kind = pa.large_list(pa.int64()) if large else pa.list_(pa.int64())
    table = one(pa.array(rows, kind).slice(cut))
    rows = rows[cut:]
    found = prepared(table, tensor(shape=(2,)))
    fits = [at for at, row in enumerate(rows) if row is not None and len(row) == 2]
    assert found.good.tolist() == fits
    assert tensors_of(found)["x"].tolist() == [rows[at] for at in fits]
    assert [refused.at for refused in found.refused] == [at for at in range(len(rows)) if at not in fits]


@given(
    rows=st.lists(st.none() | st.lists(st.none() | st.integers(-9, 9), min_size=2, max_size=2), max_size=8),
    cut=st.integers(0, 8),
    inner=st.sampled_from([pa.int64(), pa.float32(), pa.string()]),
    kind=st.sampled_from([pa.list_, pa.list_view, pa.large_list_view, lambda inner: pa.list_(inner, 2)]),
)
def test_lists_of_every_type_are_the_same_rows(rows: list[Any], cut: int, inner: pa.DataType, kind: Any) -> None:
    texts = [row and [None if each is None else str(each) for each in row] for row in rows]
    table = one(pa.array(texts if inner == pa.string() else rows, kind(inner)).slice(cut))
    found = prepared(table, tensor(shape=(2,)), on_null="fill=5")
    filled = [[5 if each is None else each for each in row or [None, None]] for row in rows[cut:]]
    assert found.refused == []
    assert tensors_of(found)["x"].tolist() == filled


@given(rows=st.lists(st.none() | st.lists(st.none() | NUMBERS, max_size=3), max_size=8), cut=st.integers(0, 4))
def test_nested_lists_are_taken_apart_as_python_would(rows: list[Any], cut: int) -> None:
    layout = layout_of(pa.array(rows, pa.list_(pa.list_(pa.int32()))).slice(cut))
    leaves = layout.leaves.to_pylist()
    nulls = layout.nulls if layout.nulls is not None else np.zeros(len(rows[cut:]), bool)
    for at, row in enumerate(rows[cut:]):
        assert nulls[at] == (row is None or any(each is None for each in row))
        if nulls[at]:
            continue
        uneven = len({len(each) for each in row}) > 1
        assert (at in layout.uneven) == uneven
        if not uneven:
            assert layout.sizes[at].tolist() == [len(row), len(row[0]) if row else 0]
            start = layout.starts[at]
            flat = [number for each in row for number in each]
            assert leaves[start : start + layout.counts[at]] == flat


def test_a_shape_may_be_nested_flat_or_without_its_ones() -> None:
    for values in ([[[1, 2], [3, 4]]], [[1, 2, 3, 4]], [[[[1, 2], [3, 4]]]]):
        found = tensors_of(prepared(one(values), tensor(shape=(1, 2, 2))))["x"]
        assert found.tolist() == [[[[1, 2], [3, 4]]]]


def test_a_number_is_a_tensor_of_one_element() -> None:
    assert tensors_of(prepared(one([1.5, 2.5]), tensor(shape=(1, 1))))["x"].tolist() == [[[1.5]], [[2.5]]]


def test_a_wrong_shape_names_what_is_there_and_what_is_wanted() -> None:
    rows = prepared(one([[1.0] * 4, [1.0] * 3, []]), tensor(shape=(2, 2)))
    assert reasons(rows) == {
        1: "column 'x' holds 3 values, but the model takes 4",
        2: "column 'x' holds 0 values, but the model takes 4",
    }
    nested = prepared(one([[[1.0, 2.0], [3.0]], [[1.0], [2.0]]]), tensor(shape=(2, 2)))
    assert reasons(nested) == {
        0: "column 'x' holds lists of different lengths, but x FP32 [rows, 2, 2] is wanted",
        1: "column 'x' holds the shape [2, 1], but x FP32 [rows, 2, 2] is wanted",
    }


def test_rows_of_varying_length_share_batches_by_their_shape() -> None:
    rows = prepared(one([[1.0, 2.0], [3.0], [4.0, 5.0], []]), tensor(shape=(-1,)))
    assert rows.good.tolist() == [0, 1, 2]
    assert reasons(rows) == {3: "column 'x' holds 0 values, but x FP32 [rows, ?] is wanted"}
    assert rows.lengths is None
    assert rows.groups is not None
    assert rows.groups[0] == rows.groups[2] != rows.groups[1]
    assert rows.tensors(np.array([2, 0]))["x"].tolist() == [[4.0, 5.0], [1.0, 2.0]]
    with pytest.raises(ValueError, match="different shapes"):
        rows.tensors(np.array([0, 1]))


def test_one_size_that_varies_is_told_by_the_length_of_a_flat_list() -> None:
    rows = prepared(one([[1.0] * 6, [2.0] * 3, [3.0] * 4]), tensor(shape=(-1, 3)))
    assert rows.good.tolist() == [0, 1]
    assert rows.tensors(np.array([0]))["x"].shape == (1, 2, 3)


def test_groups_are_those_of_all_inputs_together() -> None:
    table = pa.RecordBatch.from_pydict({"a": [[1.0], [1.0], [1.0]], "b": [[1.0], [1.0, 2.0], [1.0]]})
    rows = prepared(table, tensor("a", shape=(-1,)), tensor("b", shape=(-1,)))
    assert rows.groups is not None
    assert rows.groups[0] == rows.groups[2] != rows.groups[1]


def test_sizes_of_one_name_must_agree_within_a_row() -> None:
    table = pa.RecordBatch.from_pydict({"a": [[1.0], [1.0]], "b": [[1.0], [1.0, 2.0]]})
    rows = prepared(table, tensor("a", shape=(-1,), symbols=("t",)), tensor("b", shape=(-1,), symbols=("t",)))
    assert rows.good.tolist() == [0]
    assert reasons(rows) == {1: "the size 't' is 1 in one input and 2 in another; it must be the same"}


def test_a_bad_element_is_named_by_its_place() -> None:
    rows = prepared(one([[1, 2], [3, 400]]), tensor(datatype="UINT8", shape=(2,)))
    assert reasons(rows) == {1: "column 'x', element 1: 400 is no UINT8"}


def test_columns_of_numbers_are_elements_of_one_input() -> None:
    table = pa.RecordBatch.from_pydict({"b": [1, 2], "a": [0.5, None]})
    rows = prepared(table, tensor(shape=(2,)), mapping={"a,b": "x"})
    assert tensors_of(rows)["x"].tolist() == [[0.5, 1.0]]
    assert reasons(rows) == {1: "column 'a' is null; --on-null skip or fill=VALUE allows it"}
