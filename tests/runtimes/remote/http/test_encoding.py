"""Tensors as raw bytes and as JSON: every array comes back exactly, and forged answers are refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.runtimes.remote.equality import same

from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.runtimes.remote.base import BadAnswer, Refused
from headrace.runtimes.remote.encoding.json_rows import read_columns, read_rows, stacked, write_columns, write_rows
from headrace.runtimes.remote.encoding.json_values import (
    as_text,
    read_document,
    read_values,
    write_flat,
    write_values,
)
from headrace.runtimes.remote.encoding.raw import pack, unpack

Shapes: TypeAlias = st.SearchStrategy[tuple[int, ...]]

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
FULL_SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
NUMBERS = [name for name in DTYPES if name not in ("BYTES", "BF16")]
ELEMENTS = st.binary(max_size=20)


@st.composite
def number_arrays(draw: st.DrawFn, shapes: Shapes = SHAPES) -> np.ndarray:
    return draw(hnp.arrays(DTYPES[draw(st.sampled_from(NUMBERS))], shapes))


@st.composite
def byte_arrays(draw: st.DrawFn, shapes: Shapes = SHAPES) -> np.ndarray:
    return draw(hnp.arrays(object, shapes, elements=ELEMENTS))


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether arrays are equal, whatever the payload of their NaNs."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    )


@given(number_arrays())
def test_numbers_come_back_from_raw_bytes(array: np.ndarray) -> None:
    assert same(unpack(pack(array), datatype_of(array.dtype), array.shape, "y"), array)


@given(byte_arrays())
def test_texts_come_back_from_raw_bytes(array: np.ndarray) -> None:
    found = unpack(pack(array), "BYTES", array.shape, "y")
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4).T, np.arange(6, dtype=">i4"), np.arange(9)[::-2]])
def test_any_memory_order_is_packed_row_by_row(array: np.ndarray) -> None:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    assert bytes(pack(array)) == little.tobytes()


def test_packing_copies_nothing_that_lies_right() -> None:
    array = np.ones((64, 1000), np.float32)
    assert np.shares_memory(np.frombuffer(pack(array), np.uint8), array)


def test_bf16_comes_back_from_raw_bytes() -> None:
    array = np.array([[1.5, math.inf, -0.0]], ml_dtypes.bfloat16)
    assert same(unpack(pack(array), "BF16", (1, 3), "y"), array)


def test_an_answer_at_an_odd_address_is_aligned() -> None:
    body = bytearray(b"x" + np.arange(4, dtype="<f8").tobytes())
    found = unpack(memoryview(body)[1:], "FP64", (4,), "y")
    assert found.flags.aligned
    assert found.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "words"),
    [
        (b"1234567", "FP32", (2,), "carries 7 bytes, but FP32 of shape"),
        (b"", "COMPLEX", (0,), "unknown datatype 'COMPLEX'"),
        (b"12345678", "FP32", (-2, -1), "impossible shape"),
        (b"", "FP32", (0, 1 << 62, 1 << 62), "impossible shape"),
        (b"", "FP32", (1 << 200,), "impossible shape"),
        (b"", "FP32", (1,) * 33, "impossible shape"),
        (b"\x02", "BOOL", (1,), "other than 0 and 1"),
        (b"\x01\x00\x00", "BYTES", (1,), "1 elements in 3 bytes"),
        (b"\x05\x00\x00\x00ab", "BYTES", (1,), "cut off in element 0"),
        (b"\x01\x00\x00\x00ab", "BYTES", (1,), "1 bytes too many"),
        (b"", "BYTES", (1 << 40,), "elements in 0 bytes"),
    ],
)
def test_forged_raw_bytes_are_refused(data: bytes, datatype: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        unpack(data, datatype, shape, "y")


@given(st.binary(max_size=60), st.sampled_from([*DTYPES, "?"]), st.lists(st.integers(-2, 9), max_size=4))
def test_any_raw_bytes_are_an_array_or_a_bad_answer(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        found = unpack(data, datatype, shape, "y")
    except BadAnswer:
        return
    assert found.shape == tuple(shape)


@given(number_arrays(FULL_SHAPES))
def test_numbers_come_back_from_json(array: np.ndarray) -> None:
    datatype = datatype_of(array.dtype)
    nested = read_values(read_document(write_values(array)), datatype, "y")
    flat = read_values(read_document(write_flat(array, "x")), datatype, "y")
    assert equal(nested, array)
    assert equal(flat, array.reshape(-1))


@given(byte_arrays(FULL_SHAPES))
def test_texts_come_back_from_json(array: np.ndarray) -> None:
    assert read_values(read_document(write_values(array)), "BYTES", "y").tolist() == array.tolist()


def test_bf16_comes_back_from_json() -> None:
    array = np.array([1.5, math.nan, 3e38], ml_dtypes.bfloat16)
    assert read_values(read_document(write_values(array)), "BF16", "y").tobytes() == array.tobytes()


def test_nan_and_infinity_are_bare_tokens() -> None:
    array = np.array([[math.nan, math.inf, -math.inf, 1.0]], np.float32)
    assert write_values(array) == b"[[NaN,Infinity,-Infinity,1.0]]"


def test_large_integers_are_exact() -> None:
    array = np.array([2**63 - 1, -(2**63), 2**53 + 1], np.int64)
    assert write_values(array) == b"[9223372036854775807,-9223372036854775808,9007199254740993]"
    assert same(read_values(json.loads(write_values(array)), "INT64", "y"), array)
    big = np.array([2**64 - 1, 1], np.uint64)
    assert same(read_values(json.loads(write_values(big)), "UINT64", "y"), big)


def test_floats_have_their_shortest_digits() -> None:
    assert write_values(np.array([0.1], np.float32)) == b"[0.1]"
    assert write_values(np.array(0.1, np.float32)) == b"0.1"


def test_text_is_text_where_it_can_be() -> None:
    array = np.array([b"caf\xc3\xa9", b"\xff\x00"], object)
    assert json.loads(write_values(array, as_text)) == ["café", {"b64": "/wA="}]
    with pytest.raises(Refused, match="input 'x' holds bytes that are no UTF-8 text"):
        write_flat(array, "x")
    assert json.loads(write_flat(array[:1], "x")) == ["café"]


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        ([1.0, None], "FP32", "null: reach this one over gRPC"),
        ([1.5], "INT64", "is no INT64 tensor"),
        ([1.5], "FP7", "has the unknown datatype 'FP7'$"),
        ([300], "UINT8", "outside UINT8"),
        ([1e39], "FP32", "outside FP32"),
        ([[1], [1, 2]], "FP32", "is no FP32 tensor"),
        (["a"], "FP32", "holds text"),
        ([{"b64": "?"}], "BYTES", "is no BYTES tensor"),
        ([{"b64": 1}], "BYTES", "is no BYTES tensor"),
        ([["a"], "b"], "BYTES", "is no BYTES tensor"),
        (["\ud800"], "BYTES", "is no BYTES tensor"),
        ({"a": 1}, "FP32", "is no FP32 tensor"),
        (None, "FP32", "is no FP32 tensor"),
    ],
)
def test_values_of_another_kind_are_refused(value: object, datatype: str, words: str) -> None:
    with pytest.raises(BadAnswer, match=words) as caught:
        read_values(value, datatype, "scores")
    assert "'scores'" in caught.value.message
    assert "input" not in caught.value.message


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[1,", b"\xff", b"[" * 5000, b'{"a":1}x'])
def test_what_is_no_json_is_a_bad_answer(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="is no JSON"):
        read_document(body)


SPECS = (
    TensorSpec(name="scores", datatype="FP32", shape=(3,)),
    TensorSpec(name="label", datatype="INT64"),
    TensorSpec(name="text", datatype="BYTES"),
)


def batch(rows: int) -> dict[str, np.ndarray]:
    texts = np.empty(rows, object)
    texts[:] = [b"\xff%d" % row for row in range(rows)]
    scores = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 7
    return {"scores": scores, "label": np.arange(rows) + 2**60, "text": texts}


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_batches_come_back_in_both_forms(rows: int, count: int) -> None:
    specs = SPECS[:count]
    sent = {spec.name: batch(rows)[spec.name] for spec in specs}
    columns = read_columns(json.loads(write_columns(sent)), specs)
    lines = read_rows(json.loads(b"[" + b",".join(write_rows(sent)) + b"]"), specs)
    for found in (columns, lines):
        assert list(found) == list(sent)
        assert all(np.array_equal(found[name], sent[name]) and found[name].dtype == sent[name].dtype for name in sent)


def test_a_single_output_has_no_name_in_either_form() -> None:
    (spec,) = specs = SPECS[:1]
    want = [[1.0, 2.0, 3.0]]
    for found in (
        read_columns(want, specs),
        read_columns({"scores": want}, specs),
        read_rows(want, specs),
        read_rows([{"scores": want[0]}], specs),
    ):
        assert found[spec.name].tolist() == want


#: `read_columns` or `read_rows`.
Read: TypeAlias = Callable[[object, Sequence[TensorSpec]], Tensors]


@pytest.mark.parametrize(
    ("read", "document", "words"),
    [
        (read_columns, [1], "no outputs by name"),
        (read_columns, {"label": [1], "text": ["a"]}, "has no output 'scores'; it has 'label, text'"),
        (read_rows, {"label": 1}, "no list of rows"),
        (read_rows, None, "no list of rows"),
        (read_rows, [], "has no output 'scores'"),
        (read_rows, [[1.0]], "holds no outputs by name"),
        (read_rows, [{"scores": [1, 2, 3], "label": 1, "text": ""}, {"label": 1}], "row 1 .* has no output 'scores'"),
    ],
)
def test_answers_without_their_outputs_are_refused(read: Read, document: object, words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        read(document, SPECS)


def test_rows_of_one_shape_make_a_batch() -> None:
    rows = [{"y": np.array([1.0, 2.0])}, {"y": np.array([3.0, 4.0])}]
    assert stacked(rows)["y"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(BadAnswer, match="don't fit together"):
        stacked([*rows, {"y": np.array([1.0])}])
