"""Nulls: an error, skipped, or filled."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bulk.columns.made import job, one, preparation, prepared, reasons, tensor, tensors_of

from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.columns.nulls import parse_on_null
from headrace.contracts import InvalidRequest

ROWS = st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), min_size=2, max_size=3), max_size=8)


@given(rows=ROWS, policy=st.sampled_from(["error", "skip", "fill=7"]))
def test_each_row_is_good_or_bad_or_skipped(rows: list[list[int | None] | None], policy: str) -> None:
    found = prepared(one(rows, kind=pa.list_(pa.int16())), tensor(shape=(2,)), on_null=policy)
    bad = [refused.at for refused in found.refused]
    skipped = found.skipped.tolist()
    assert sorted([*found.good.tolist(), *bad, *skipped]) == list(range(len(rows)))
    good = dict(zip(found.good.tolist(), tensors_of(found)["x"].tolist(), strict=True))
    for at, row in enumerate(rows):
        wrong = row is not None and len(row) != 2
        absent = row is None or (None in row and not wrong)
        if not absent or policy == "fill=7":
            assert (at in bad) == wrong
            filled = [7, 7] if row is None else [7 if number is None else number for number in row]
            assert wrong or good[at] == filled
        else:
            assert at in (skipped if policy == "skip" else bad)


def test_a_null_is_a_bad_row_that_says_what_allows_it() -> None:
    assert reasons(prepared(one([1.0, None]), tensor())) == {
        1: "column 'x' is null; --on-null skip or fill=VALUE allows it"
    }


def test_a_null_in_any_input_skips_the_row() -> None:
    table = pa.RecordBatch.from_pydict({"a": [1.0, None, 3.0], "b": [None, "x", 3.0 and "2"]})
    found = prepared(table, tensor("a"), tensor("b", "BYTES"), on_null="skip")
    assert found.good.tolist() == [2]
    assert found.skipped.tolist() == [0, 1]


def test_a_column_of_nothing_but_nulls_has_no_type_of_its_own() -> None:
    assert tensors_of(prepared(one([None, None]), tensor(), on_null="fill=0.5"))["x"].tolist() == [0.5, 0.5]
    assert len(prepared(one([None, None]), tensor(shape=(3,)), on_null="error").refused) == 2
    assert tensors_of(prepared(one([None]), tensor(shape=(2,)), on_null="fill=1"))["x"].tolist() == [[1.0, 1.0]]
    assert tensors_of(prepared(one([None]), tensor(datatype="BYTES"), on_null="fill=a"))["x"].tolist() == [b"a"]


def test_a_row_of_varying_length_can_not_be_filled() -> None:
    found = prepared(one([[1.0], None], kind=pa.list_(pa.float32())), tensor(shape=(-1,)), on_null="fill=0")
    assert reasons(found) == {1: "column 'x' is null"}


@pytest.mark.parametrize(
    ("text", "datatype", "value"),
    [
        ("fill=3", "INT8", 3),
        ("fill=nan", "FP32", None),
        ("fill=true", "BOOL", True),
        ("fill=0", "BOOL", False),
        ("fill=-1e3", "FP32", -1000.0),
    ],
)
def test_a_filling_is_a_value_of_the_input(text: str, datatype: str, value: object) -> None:
    [found] = tensors_of(prepared(one([None]), tensor(datatype=datatype), on_null=text))["x"].tolist()
    assert found == value or (value is None and found != found)


@pytest.mark.parametrize("text", ["fill=", "fill=abc", "fill=300", "fill=[1]", "fill=1.5"])
def test_a_filling_that_is_no_value_of_the_input_is_refused_early(text: str) -> None:
    with pytest.raises(ColumnMismatch, match="is no value of 'x', which is UINT8"):
        preparation(pa.schema([("x", pa.int64())]), tensor(datatype="UINT8"), spec=job(on_null=text))


def test_another_policy_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must be error, skip or fill=VALUE"):
        parse_on_null("ignore")
