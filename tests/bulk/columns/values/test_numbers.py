"""Columns of numbers as inputs: exact, or a bad row."""

from __future__ import annotations

import decimal
import math
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import one, prepared, reasons, tensor, tensors_of

from headrace.contracts.tensors.datatypes import DTYPES

INTEGERS = [name for name in DTYPES if "INT" in name]
FLOATS = ["FP16", "FP32", "FP64", "BF16"]
ARROW = {
    **{name: getattr(pa, name.lower())() for name in INTEGERS},
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BOOL": pa.bool_(),
}
FLOAT_NUMBERS = {"FP16": st.floats(width=16), "FP32": st.floats(width=32), "FP64": st.floats()}


def exact(value: Any, datatype: str) -> bool:
    """Whether a datatype holds a number, or rounds it to a finite one; the slow way."""
    if datatype == "BOOL":
        return bool(value in (0, 1))
    if datatype in INTEGERS:
        limits = np.iinfo(DTYPES[datatype])
        return math.isfinite(value) and value == int(value) and limits.min <= int(value) <= limits.max
    with np.errstate(over="ignore"):
        return not math.isfinite(value) or bool(np.isfinite(np.float32(np.array(value).astype(DTYPES[datatype]))))


@given(
    source=st.sampled_from(sorted(ARROW)),
    target=st.sampled_from([*INTEGERS, *FLOATS, "BOOL"]),
    data=st.data(),
)
def test_every_number_arrives_as_it_was_or_makes_its_row_a_bad_one(
    source: str, target: str, data: st.DataObject
) -> None:
    if source == "BOOL":
        numbers: st.SearchStrategy[Any] = st.booleans()
    elif source in INTEGERS:
        limits = np.iinfo(DTYPES[source])
        numbers = st.integers(int(limits.min), int(limits.max)) | st.integers(0, 2)
    else:
        numbers = FLOAT_NUMBERS[source] | st.sampled_from([0.0, 1.0, -3.0])
    values = data.draw(st.lists(numbers, min_size=1, max_size=6))
    rows = prepared(one(pa.array(np.array(values, DTYPES[source]), ARROW[source])), tensor(datatype=target))
    assert rows.good.tolist() == [at for at, value in enumerate(values) if exact(value, target)]
    assert {*rows.good.tolist(), *reasons(rows)} == set(range(len(values)))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.array(values, DTYPES[source])[rows.good].astype(DTYPES[target])
    found = tensors_of(rows)["x"]
    assert found.dtype == DTYPES[target]
    np.testing.assert_array_equal(found, expected)


def test_fixed_size_lists_are_not_copied() -> None:
    flat = np.arange(20 * 64, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), 64)
    rows = prepared(one(column.slice(3, 15)), tensor(shape=(1, 8, 8)))
    found = rows.tensors(np.arange(5, 10))["x"]
    assert found.shape == (5, 1, 8, 8)
    assert np.shares_memory(found, column.values.to_numpy())
    np.testing.assert_array_equal(found.reshape(5, 64), flat.reshape(20, 64)[8:13])


def test_any_rows_can_be_asked_for_in_any_order() -> None:
    rows = prepared(one([10.0, 11.0, math.nan, 13.0]), tensor(allow_nan=False))
    assert rows.good.tolist() == [0, 1, 3]
    assert rows.tensors(np.array([2, 0]))["x"].tolist() == [13.0, 10.0]
    assert rows.tensors(np.array([0, 1, 1]))["x"].tolist() == [10.0, 11.0, 11.0]
    assert rows.tensors(np.array([], np.int64))["x"].tolist() == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_where_the_model_forbids_it_is_a_bad_row(bad: float) -> None:
    rows = prepared(one([[1.0, 2.0], [bad, 2.0]]), tensor(shape=(2,), allow_nan=False))
    assert rows.good.tolist() == [0]
    assert reasons(rows) == {1: "column 'x', element 0 is NaN or infinite, which this model forbids"}
    assert rows.refused[0].type == "NotFinite"


def test_nan_is_a_number_to_a_model_that_takes_it() -> None:
    assert prepared(one([math.nan]), tensor()).good.tolist() == [0]


def test_a_number_that_is_too_large_is_named() -> None:
    rows = prepared(one([1, 300]), tensor(datatype="UINT8"))
    assert reasons(rows) == {1: "column 'x': 300 is no UINT8"}


def test_decimals_and_dictionaries_are_numbers() -> None:
    table = pa.RecordBatch.from_pydict({
        "a": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-2.00")]),
        "b": pa.array([7, 8]).dictionary_encode(),
    })  # fmt: skip
    found = tensors_of(prepared(table, tensor("a"), tensor("b", "INT32")))
    assert found["a"].tolist() == [1.5, -2.0]
    assert found["b"].tolist() == [7, 8]


def test_bfloat16_rounds_as_it_does_online() -> None:
    found = tensors_of(prepared(one([1.0, 3.141592]), tensor(datatype="BF16")))["x"]
    assert found.dtype == ml_dtypes.bfloat16
    assert found.astype(np.float32).tolist() == [1.0, 3.140625]


def test_rows_lie_where_the_model_has_them() -> None:
    found = tensors_of(prepared(one([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), tensor(shape=(2,), rows_at=1)))["x"]
    assert found.tolist() == [[1, 3, 5], [2, 4, 6]]


def test_a_model_without_rows_takes_one_row_at_a_time() -> None:
    rows = prepared(one([[1.0, 2.0], [3.0, 4.0]]), tensor(shape=(2,), per_request=True))
    assert rows.tensors(np.array([1]))["x"].tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="one by one"):
        rows.tensors(np.array([0, 1]))


def test_extension_types_are_what_they_store() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2))
    found = tensors_of(prepared(one(tensors), tensor(shape=(2, 2))))["x"]
    assert found.reshape(-1).tolist() == list(range(12))


def test_text_and_bytes_are_what_a_model_for_strings_takes() -> None:
    found = tensors_of(prepared(one(["a", "", "ü"]), tensor(datatype="BYTES")))["x"]
    assert found.tolist() == [b"a", b"", "ü".encode()]
    assert tensors_of(prepared(one([b"\xff"]), tensor(datatype="BYTES")))["x"].tolist() == [b"\xff"]
    assert tensors_of(prepared(one([["a", "b"]]), tensor(datatype="BYTES", shape=(2,))))["x"].tolist() == [[b"a", b"b"]]


def test_no_rows_are_no_rows() -> None:
    for kind, spec in ((pa.float32(), tensor()), (pa.list_(pa.float64()), tensor(shape=(4,))), (pa.string(), tensor())):
        rows = prepared(one([], kind=kind), spec)
        assert (rows.good.size, rows.refused, rows.skipped.size) == (0, [], 0)
