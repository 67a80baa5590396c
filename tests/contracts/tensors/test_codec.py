"""Tensors survive the wire exactly, and no forged body gets past the decoder as anything but InvalidRequest."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from headrace.contracts import InvalidRequest, SignatureMismatch, decode_tensors, encode_tensors
from headrace.contracts.tensors.codec import (
    MAX_DIMENSIONS,
    MAX_SHORT_MAP,
    as_array,
    can_be_json,
    datatypes_line,
    encode_entry,
    map_head,
    tensors_from_json,
    tensors_to_json,
)
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of

FIXED = [name for name in DTYPES if name != "BYTES"]
names = st.text(st.characters(codec="utf-8"), max_size=20)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str] = list(DTYPES)) -> NDArray[Any]:  # noqa: B006 — never changed
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(shapes)
    if datatype == "BYTES":
        elements = draw(st.lists(st.binary(max_size=9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return array.reshape(shape)
    if datatype == "BOOL":
        return draw(hnp.arrays(np.bool_, shape))
    raw = draw(hnp.arrays(np.uint8, (*shape, DTYPES[datatype].itemsize)))
    return raw.view(DTYPES[datatype]).reshape(shape)


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def wire(datatype: object, shape: object, data: object = b"", name: object = "x") -> bytes:
    return msgspec.msgpack.encode({name: (datatype, shape, data)})


@given(st.dictionaries(names, arrays(), max_size=20))
def test_any_tensors_of_any_datatype_survive_bit_by_bit(tensors: dict[str, NDArray[Any]]) -> None:
    decoded = decode_tensors(encode_tensors(tensors))
    assert list(decoded) == list(tensors)
    assert all(same(decoded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("datatype", FIXED)
def test_decoded_arrays_are_read_only_views_into_the_body(datatype: str) -> None:
    body = encode_tensors({"x": np.ones((3, 2), DTYPES[datatype])})
    array = decode_tensors(body)["x"]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_a_body_is_the_head_of_a_map_and_its_entries() -> None:
    tensors = {f"input {index}": np.arange(index, dtype=np.float32) for index in range(MAX_SHORT_MAP)}
    entries = [encode_entry(name, array) for name, array in tensors.items()]
    assert map_head(len(tensors)) + b"".join(entries) == encode_tensors(tensors)
    assert entries[-1].endswith(tensors["input 14"].tobytes())


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_buffer(wrap: Any) -> None:
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert same(decode_tensors(wrap(encode_tensors(tensors)))["x"], tensors["x"])


def test_more_names_than_a_short_map_header_holds_survive() -> None:
    for count in (15, 16, 70_000):
        tensors = {f"x{number}": np.zeros(1, np.uint8) for number in range(count)}
        assert len(decode_tensors(encode_tensors(tensors))) == count


@pytest.mark.parametrize("value", [np.array(3.5, np.float32), np.array(b"text", dtype=object), np.array(True)])
def test_a_tensor_without_dimensions_survives(value: NDArray[Any]) -> None:
    assert same(decode_tensors(encode_tensors({"x": value}))["x"], value)
    assert same(tensors_from_json(json.loads(tensors_to_json({"x": value})), datatypes_line({"x": value}))["x"], value)


@given(arrays(FIXED))
def test_byte_order_and_memory_order_do_not_matter(array: NDArray[Any]) -> None:
    layouts = [np.asfortranarray(array), np.repeat(array, 2, axis=0)[::2], array[::-1][::-1]]
    if array.dtype.kind in "iuf":
        layouts.append(array.astype(array.dtype.newbyteorder(">")))
    for layout in layouts:
        assert same(decode_tensors(encode_tensors({"x": layout}))["x"], array)


@given(st.dictionaries(names, arrays(), min_size=1, max_size=3), st.data())
def test_a_body_cut_anywhere_is_an_invalid_request(tensors: dict[str, NDArray[Any]], data: st.DataObject) -> None:
    body = encode_tensors(tensors)
    with pytest.raises(InvalidRequest):
        decode_tensors(body[: data.draw(st.integers(0, len(body) - 1))])


def test_a_body_cut_at_every_byte_is_an_invalid_request() -> None:
    body = encode_tensors(
        {
            "words": np.array([b"one", b"", b"three"], dtype=object),
            "image": np.ones((2, 3), np.float32),
            "flags": np.array([True, False]),
        }
    )
    for length in range(len(body)):
        with pytest.raises(InvalidRequest):
            decode_tensors(body[:length])


@given(st.binary(max_size=200))
def test_noise_decodes_or_is_an_invalid_request(noise: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        decode_tensors(noise)


@given(st.dictionaries(names, arrays(), min_size=1, max_size=3), st.data())
def test_a_flipped_byte_decodes_or_is_an_invalid_request(tensors: dict[str, NDArray[Any]], data: st.DataObject) -> None:
    body = bytearray(encode_tensors(tensors))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(InvalidRequest):
        decode_tensors(bytes(body))


sizes = st.one_of(
    st.integers(-3, 5), st.sampled_from([2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
)


@given(st.sampled_from(list(DTYPES)), st.lists(sizes, max_size=40), st.binary(max_size=16))
def test_a_forged_shape_decodes_or_is_an_invalid_request(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        array = decode_tensors(wire(datatype, shape, data))["x"]
    except InvalidRequest:
        return
    assert array.shape == tuple(shape)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
@pytest.mark.parametrize(
    ("shape", "cause"),
    [
        ([2**40, 2**40], "truncated|needs"),
        ([2**40, 2**40, 0], "impossible shape"),
        ([2**63 - 1, 0, 8], "impossible shape"),
        ([2**64 - 1, 0], "impossible shape"),
        ([-1], "negative size"),
        ([-1, -1], "negative size"),
        ([1] * (MAX_DIMENSIONS + 1), "33 dimensions"),
    ],
)
def test_an_impossible_shape_is_named(datatype: str, shape: list[int], cause: str) -> None:
    with pytest.raises(InvalidRequest, match=cause):
        decode_tensors(wire(datatype, shape))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x91" * 100_000,
        b"\x81\xa1x" * 100_000,
        b"\x81\xa1x\x93\xa4FP32" + b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xdd\xff\xff\xff\xff",
        b"\x81\xa1x\x93\xa4FP32\xdd\xff\xff\xff\xff",
        b"\x81\xa1x\x93\xa4FP32\x91\x01\xc6\xff\xff\xff\xff0000",
        b"\x81\xa2\xff\xfe" + msgspec.msgpack.encode(("FP32", [1], b"0000")),
        b"\x81\xa1x\x93\xa2\xff\xfe\x91\x01\xc4\x040000",
        wire("FP32", [1], b"0000") + b"more",
        wire("FP32", [1], "0000"),
        wire("FP32", [1.0], b"0000"),
        wire("FP32", [True], b"0000"),
        wire("FP32", ["1"], b"0000"),
        wire("FP32", 1, b"0000"),
        wire("FP8", [4], b"0000"),
        wire(None, [4], b"0000"),
        wire("FP32", [1], b"0000", name=1),
        msgspec.msgpack.encode([["x", "FP32", [1], b"0000"]]),
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01x\x94K\x01s.",
    ],
    ids=range(22),
)
def test_a_forged_body_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_tensors(body)


@pytest.mark.parametrize("count", [2, 16])
def test_a_name_given_twice_is_refused_rather_than_one_of_them_dropped(count: int) -> None:
    entry = b"\xa1x" + msgspec.msgpack.encode(("FP32", [1], b"0000"))
    head = bytes([0x80 | count]) if count < 16 else b"\xde" + count.to_bytes(2, "big")
    with pytest.raises(InvalidRequest, match="names an input twice"):
        decode_tensors(head + entry * count)


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (2**30, b"\0\0\0\0"),
        (2**62, b""),
        (1, b"\xff\xff\xff\xff"),
        (1, b"\x05\0\0\0abcd"),
        (2, b"\x04\0\0\0abcd\0\0\0"),
        (1, b"\0\0\0\0\0"),
        (0, b"\0\0\0\0"),
    ],
)
def test_bytes_that_do_not_add_up_are_an_invalid_request(count: int, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="input 'x'"):
        decode_tensors(wire("BYTES", [count], data))


def test_a_bool_tensor_holds_nothing_but_0_and_1() -> None:
    assert decode_tensors(wire("BOOL", [2], b"\0\1"))["x"].tolist() == [False, True]
    with pytest.raises(InvalidRequest, match="other than 0 and 1"):
        decode_tensors(wire("BOOL", [2], b"\1\2"))


def test_an_error_quotes_a_huge_name_only_in_part() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_tensors(wire("FP32", [3], b"0000", name="x" * 1_000_000))
    assert len(caught.value.message) < 400
    assert "needs 12" in caught.value.message


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(1, np.complex64),
        np.zeros(1, "M8[s]"),
        np.zeros(1, [("field", "i4")]),
        np.zeros(1, np.longdouble),
        np.zeros(1, ml_dtypes.float8_e4m3fn),
        np.array([b"text", 1], dtype=object),
        np.array([None], dtype=object),
        np.array([["ragged"], ["lists", "here"]], dtype=object),
        np.array(["\ud800"], dtype=object),
        np.zeros((1,) * (MAX_DIMENSIONS + 1)),
        [1.0, 2.0],
        np.float32(1),
        None,
    ],
    ids=range(13),
)
def test_what_no_tensor_can_hold_is_refused_when_encoding(array: Any) -> None:
    with pytest.raises(SignatureMismatch):
        encode_tensors({"x": array})


@pytest.mark.parametrize("name", [1, None, "\ud800"])
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(SignatureMismatch):
        encode_tensors({name: np.zeros(1)})


@pytest.mark.parametrize(
    "array",
    [np.array(["one", "zwei"]), np.array([b"one", b"zwei"]), np.array(["one", "zwei"], dtype=np.dtypes.StringDType())],
    ids=["str", "bytes", "variable"],
)
def test_every_kind_of_text_array_travels_as_bytes(array: NDArray[Any]) -> None:
    assert decode_tensors(encode_tensors({"x": array}))["x"].tolist() == [b"one", b"zwei"]
    assert json.loads(tensors_to_json({"x": array})) == {"x": ["one", "zwei"]}


# Nested lists.

numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.binary(max_size=3))
nested = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(nested, st.sampled_from(list(DTYPES)))
def test_any_nesting_becomes_an_array_of_the_datatype_or_a_mismatch(value: object, datatype: str) -> None:
    try:
        array = as_array(value, datatype)
    except SignatureMismatch:
        return
    assert datatype_of(array.dtype) == datatype


@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
def test_integers_are_kept_exactly_up_to_both_limits(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    assert as_array([limits.min, 0, limits.max], datatype).tolist() == [limits.min, 0, limits.max]
    for outside in (limits.min - 1, limits.max + 1):
        with pytest.raises(SignatureMismatch, match=r"outside|64 bits"):
            as_array([0, outside], datatype)


@pytest.mark.parametrize("value", [[1.5], [1, 2.0], [True], ["1"], [None], [2**64], [[1], [1, 2]], [float("nan")]])
def test_what_would_change_a_value_is_refused_for_integers(value: object) -> None:
    for datatype in ("INT64", "UINT64", "UINT8"):
        with pytest.raises(SignatureMismatch, match="input 'counts'"):
            as_array(value, datatype, "counts")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("datatype", ["INT64", "UINT8", "BOOL"])
def test_nan_among_whole_numbers_is_named(datatype: str, value: float) -> None:
    with pytest.raises(SignatureMismatch, match=f"'counts' must be {datatype}, but holds NaN or infinity"):
        as_array([1.0, value], datatype, "counts")


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 65536), ("FP32", 1e39), ("BF16", 1e39), ("FP16", 1e5)])
def test_a_number_too_large_for_a_float_is_refused_rather_than_made_infinite(datatype: str, value: float) -> None:
    with pytest.raises(SignatureMismatch, match="outside"):
        as_array([value], datatype)
    assert np.isinf(as_array([float("inf")], datatype).astype(np.float64)).all()


def test_one_long_string_among_many_short_ones_takes_no_memory() -> None:
    # numpy would want 4 bytes × the longest × their number: here 40 TB.
    with pytest.raises(SignatureMismatch, match="text"):
        as_array([1, "x" * 10_000_000, *[""] * 1_000_000], "FP32")


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_endless_nesting_is_a_mismatch(datatype: str) -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(SignatureMismatch):
            as_array(value, datatype)


def test_arrays_that_do_not_stack_are_a_mismatch() -> None:
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(SignatureMismatch):
            as_array([np.zeros((2, 1)), np.zeros((2, 2))], datatype)


# JSON in the store.


@given(st.dictionaries(names, arrays(), min_size=1, max_size=3))
def test_what_can_be_json_comes_back_exactly(tensors: dict[str, NDArray[Any]]) -> None:
    if not can_be_json(tensors):
        return
    back = tensors_from_json(json.loads(tensors_to_json(tensors)), datatypes_line(tensors))
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tolist() == array.tolist()


@pytest.mark.parametrize("name", ["a,b", "a:FP32,b", "50%", "%2C", ",", ":", ""])
def test_any_output_name_survives_the_datatypes_line(name: str) -> None:
    tensors: dict[str, np.ndarray] = {name: np.ones(2, np.float32), "other": np.ones(2, np.int8)}
    assert list(tensors_from_json(json.loads(tensors_to_json(tensors)), datatypes_line(tensors))) == [name, "other"]


def test_tensors_come_back_in_the_order_of_the_datatypes_line_whatever_the_store_made_of_it() -> None:
    tensors = {name: np.ones(1, np.float32) for name in ("long name", "b", "aa")}
    kept = {name: [1.0] for name in sorted(tensors, key=len)}  # as jsonb does
    assert list(tensors_from_json(kept, datatypes_line(tensors))) == list(tensors)


def test_nan_and_infinity_are_written_as_literals_and_floats_by_their_shortest_digits() -> None:
    odd = [0.1, np.nan, np.inf, -np.inf]
    tensors = {
        "half": np.array(odd, np.float16),
        "single": np.array([odd], ">f4"),
        "double": np.array(odd).reshape(2, 2),
        "brain": np.array(odd[1:], ml_dtypes.bfloat16),
        "label": np.array([3, 2**63 - 1]),
        "flag": np.array(True),
        "name": np.array([["null", "NaN"]]),
        "raw": np.array([b"\xff"], dtype=object),
        "scalar": np.array(np.nan, np.float32),
        "none": np.zeros((2, 0), np.float32),
    }
    assert tensors_to_json(tensors).decode() == (
        '{"half":[0.099975586,NaN,Infinity,-Infinity],"single":[[0.1,NaN,Infinity,-Infinity]],'
        '"double":[[0.1,NaN],[Infinity,-Infinity]],"brain":[NaN,Infinity,-Infinity],'
        '"label":[3,9223372036854775807],"flag":true,"name":[["null","NaN"]],"raw":["/w=="],"scalar":NaN,"none":[[],[]]}'
    )


@given(arrays(["FP16", "FP32", "FP64", "BF16"]))
def test_any_float_is_written_so_that_python_reads_it_again(array: NDArray[Any]) -> None:
    back = np.array(json.loads(tensors_to_json({"x": array}))["x"]).astype(array.dtype).reshape(array.shape)
    with np.errstate(invalid="ignore"):  # there are NaNs that a cast changes into others
        assert np.array_equal(back.astype(np.float64), array.astype(np.float64), equal_nan=True)


@pytest.mark.parametrize(("value", "text"), [(0.1, b"0.1"), (np.nan, b"NaN"), (-np.inf, b"-Infinity")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_float_without_dimensions_is_written_like_one_with_some(value: float, text: bytes, dtype: Any) -> None:
    assert tensors_to_json({"x": np.array(value, dtype)}) == b'{"x":' + text + b"}"


def test_large_unsigned_integers_come_back_from_json() -> None:
    tensors = {"x": np.array([0, 1, 2**63, 2**64 - 1], np.uint64)}
    assert same(tensors_from_json(json.loads(tensors_to_json(tensors)), "x:UINT64")["x"], tensors["x"])


def test_big_endian_arrays_become_json_too() -> None:
    assert tensors_to_json({"x": np.arange(3, dtype=">f4"), "y": np.arange(2, dtype=">i8")}) == (
        b'{"x":[0.0,1.0,2.0],"y":[0,1]}'
    )


@pytest.mark.parametrize(
    "array",
    [
        np.array([np.nan]),
        np.array([np.inf], np.float16),
        np.array([np.nan], ml_dtypes.bfloat16),
        np.zeros((2, 0)),
        np.array([b"\xff"], dtype=object),
        np.array([b"NUL \0"], dtype=object),
        np.array(["\ud800"], dtype=object),
        np.array(["NUL \0 inside"]),
        np.array([1], dtype=object),
    ],
    ids=range(9),
)
def test_what_json_or_postgres_would_change_is_not_json(array: NDArray[Any]) -> None:
    assert not can_be_json({"good": np.ones(1), "x": array})


@pytest.mark.parametrize("line", ["", "y:FP32", "x", "x:", "x:FP8", "x:FP32,y:FP32", ",,", "x:FP32:"])
def test_a_datatypes_line_that_does_not_fit_is_a_mismatch(line: str) -> None:
    with pytest.raises(SignatureMismatch):
        tensors_from_json({"x": [1.0]}, line)
