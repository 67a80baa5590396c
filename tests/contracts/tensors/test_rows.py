"""Cutting, joining and padding along the rows of tensors, wherever each holds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import Tensors, TensorSpec
from headrace.contracts.tensors.rows import RowAxes

DTYPES = ["FP32", "INT64", "BOOL", "BYTES"]


#: Specs, tensors that fit them, and their number of rows.
Side = tuple[list[TensorSpec], Tensors, int]


@st.composite
def sides(draw: st.DrawFn) -> Side:
    """Specs, tensors that fit them, and their number of rows."""
    rows = draw(st.integers(1, 7))
    specs, tensors = [], {}
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
        whole = number > 0 and draw(st.booleans())
        spec = TensorSpec(
            name=f"t{number}",
            datatype="FP32",
            shape=shape,
            per_request=whole,
            rows_at=0 if whole else draw(st.integers(0, len(shape))),
        )
        specs.append(spec)
        size = spec.whole_shape(rows)
        values = draw(st.integers(0, 100)) + np.arange(np.prod(size)).reshape(size)
        tensors[spec.name] = values.astype(object) if draw(st.booleans()) else values
    return specs, tensors, rows


@given(sides(), st.data())
def test_pieces_joined_again_are_the_whole(side: Side, data: st.DataObject) -> None:
    specs, tensors, rows = side
    axes = RowAxes(specs)
    assert axes.count(tensors) == rows
    counts: list[int] = []
    while sum(counts) < rows:
        counts.append(data.draw(st.integers(1, rows - sum(counts))))
    pieces = axes.split(tensors, counts)
    assert [axes.count(piece) for piece in pieces] == counts
    for name, array in axes.join(pieces).items():
        np.testing.assert_array_equal(array, tensors[name])


@given(sides(), st.integers(0, 5))
def test_padding_repeats_the_last_row_and_leaves_what_has_no_rows(side: Side, more: int) -> None:
    specs, tensors, rows = side
    axes = RowAxes(specs)
    padded = axes.pad(tensors, rows + more)
    assert axes.count(padded) == rows + more
    for spec in specs:
        array = padded[spec.name]
        if spec.per_request:
            assert array is tensors[spec.name]
            continue
        rows_first = np.moveaxis(array, spec.rows_at, 0)
        np.testing.assert_array_equal(rows_first[:rows], np.moveaxis(tensors[spec.name], spec.rows_at, 0))
        for row in rows_first[rows:]:
            np.testing.assert_array_equal(row, rows_first[rows - 1])


X = TensorSpec(name="x", datatype="FP32", shape=(2,))
K = TensorSpec(name="k", datatype="FP32", shape=(-1,), per_request=True)
S = TensorSpec(name="s", datatype="BYTES", per_request=True, optional=True)


def test_an_array_that_has_the_rows_is_not_copied() -> None:
    x = np.ones((4, 2), np.float32)
    assert RowAxes([X]).pad({"x": x}, 4)["x"] is x
    assert RowAxes([X]).join([{"x": x}])["x"] is x


def test_no_rows_can_be_padded_and_none_can_be_taken_away() -> None:
    axes = RowAxes([X])
    for rows in (0, 5):
        with pytest.raises(ValueError, match="can't be padded to 4"):
            axes.pad({"x": np.ones((rows, 2), np.float32)}, 4)


@pytest.mark.parametrize("length", [2, 5000])
def test_requests_share_a_run_only_where_they_agree_on_parameters(length: int) -> None:
    axes = RowAxes([X, K, S])
    x, k = np.ones((1, 2), np.float32), np.ones(length, np.float32)
    key = axes.request_key({"x": x, "k": k})
    assert key == axes.request_key({"k": k.copy(), "x": x + 1})
    other = k.copy()
    other[-1] = 2
    word = np.array(b"word", object)
    different = [{"x": x, "k": other}, {"x": x, "k": k[:-1]}, {"x": x, "k": k, "s": word}]
    assert len({key, *map(axes.request_key, different)}) == 4
    assert hash(axes.request_key(different[-1])) == hash(axes.request_key({"x": x, "k": k, "s": word.copy()}))


def test_values_that_only_look_alike_are_told_apart() -> None:
    axes = RowAxes([TensorSpec(name="k", datatype="INT64", shape=(-1, -1), per_request=True)])
    wide, tall = np.zeros((1, 4), np.int64), np.zeros((4, 1), np.int64)
    assert axes.request_key({"k": wide}) != axes.request_key({"k": tall})
