"""Columns of any type, with any values: refused at once, or each row is good, bad or skipped."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bulk.columns.made import prepared, tensor

from headrace.bulk.columns.base import ColumnMismatch, PreparedRows
from headrace.contracts import TensorSpec
from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.signature import check_tensor

ROWS = 4

#: Type → values of it.
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2),
    pa.uint64(): st.integers(0, 2**64 - 1) | st.integers(0, 2),
    pa.float32(): st.floats(width=32) | st.integers(0, 2).map(float),
    pa.float64(): st.floats() | st.integers(0, 2).map(float),
    pa.bool_(): st.booleans(),
    pa.string(): st.sampled_from(["", "1", "abc", "[1,2]", "[[1,2],[3,4]]", " 2 ", "nan", "true", "[1, null]", "{}"]),
    pa.large_string(): st.text(max_size=3),
    pa.string_view(): st.sampled_from(["1", "x"]),
    pa.binary(): st.binary(max_size=3),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.timestamp("us"): st.just(dt.datetime(2026, 1, 1)),
    pa.decimal128(6, 2): st.sampled_from([decimal.Decimal("1.50"), decimal.Decimal("2.00")]),
    pa.null(): st.none(),
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]): st.just({"bytes": b"x", "path": "p"}),
}

LISTS: list[Callable[[pa.DataType], pa.DataType]] = [
    pa.list_,
    pa.large_list,
    pa.list_view,
    lambda inner: pa.list_(inner, 2),
    lambda inner: pa.list_(inner, 4),
]


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    """Make a column, nested up to twice, sliced out of a longer one."""
    kind = draw(st.sampled_from(list(VALUES)))
    values = VALUES[kind] | st.none()
    for made in draw(st.lists(st.sampled_from(LISTS), max_size=2)):
        kind = made(kind)
        fixed = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        values = st.none() | st.lists(values, min_size=fixed or 0, max_size=fixed or 3)
    rows = draw(st.lists(values, min_size=ROWS + 2, max_size=ROWS + 2))
    try:
        array = pa.array(rows, kind)
    except (pa.ArrowException, TypeError):
        array = pa.array(range(ROWS + 2))
    return array.slice(1, ROWS)


@st.composite
def inputs(draw: st.DrawFn) -> TensorSpec:
    """Make an input of a model."""
    if draw(st.integers(0, 9)) == 0:
        return tensor(shape=(3, 4, 4), decode=ImageDecode(resize=(4, 4)))
    shape = draw(st.sampled_from([(), (1,), (2,), (4,), (2, 2), (1, 2, 2), (-1,), (-1, 2), (2, -1), (-1, -1)]))
    datatype = draw(st.sampled_from(["FP32", "FP16", "BF16", "INT64", "UINT8", "UINT64", "BOOL", "BYTES"]))
    return tensor("x", datatype, shape, allow_nan=draw(st.booleans()))


@settings(max_examples=300, deadline=None)
@given(column=columns(), other=columns(), spec=inputs(), on_null=st.sampled_from(["error", "skip", "fill=1"]))
def test_a_column_is_refused_or_each_of_its_rows_is_good_bad_or_skipped(
    column: pa.Array, other: pa.Array, spec: TensorSpec, on_null: str
) -> None:
    table = pa.RecordBatch.from_arrays([column, other], names=["x", "other"])
    try:
        rows = prepared(table, spec, on_null=on_null)
    except ColumnMismatch:
        return
    bad = [refused.at for refused in rows.refused]
    assert sorted([*rows.good.tolist(), *bad, *rows.skipped.tolist()]) == list(range(ROWS))
    for which in batches(rows):
        check_tensor(spec, rows.tensors(which)[spec.name])


def batches(rows: PreparedRows) -> list[Any]:
    """Return the rows that may run together."""
    if rows.groups is None:
        return [np.arange(len(rows.good))] if len(rows.good) else []
    return [np.flatnonzero(rows.groups == group) for group in np.unique(rows.groups)]
