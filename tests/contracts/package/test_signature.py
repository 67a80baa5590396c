"""Every request that does not fit its model gets one clear line that names the input."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import PackageError, Signature, SignatureMismatch, TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES

OUTPUT = TensorSpec(name="y", datatype="FP32")


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=(OUTPUT,))


IMAGE = signature(TensorSpec(name="image", datatype="FP32", shape=(2, 3)))
WORDS = signature(TensorSpec(name="words", datatype="BYTES"))
TOKENS = signature(
    TensorSpec(name="ids", datatype="INT64", shape=(-1,)), TensorSpec(name="mask", datatype="BOOL", shape=(-1,))
)
FINITE = signature(
    *(TensorSpec(name=kind, datatype=kind, allow_nan=False) for kind in ("FP16", "FP32", "FP64", "BF16"))
)


def refusal(model: Signature, given: Any) -> str:
    with pytest.raises(SignatureMismatch) as caught:
        model.check_inputs(given)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 700
    return caught.value.message


def test_an_array_that_fits_is_taken_as_it_is() -> None:
    array = np.ones((4, 2, 3), np.float32)
    assert IMAGE.check_inputs({"image": array})["image"] is array


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_every_datatype_is_taken(datatype: str) -> None:
    model = signature(TensorSpec(name="x", datatype=datatype))
    value = np.array([b"a"], dtype=object) if datatype == "BYTES" else np.ones(1, DTYPES[datatype])
    assert model.check_inputs({"x": value})["x"].dtype == DTYPES[datatype]


def test_lists_and_numbers_are_converted() -> None:
    checked = IMAGE.check_inputs({"image": [[[1, 2, 3], [4, 5, 6.5]]]})["image"]
    assert checked.dtype == np.float32
    assert checked.tolist() == [[[1, 2, 3], [4, 5, 6.5]]]


def test_a_big_endian_array_is_converted() -> None:
    array = np.arange(6, dtype=">f4").reshape(1, 2, 3)
    checked = IMAGE.check_inputs({"image": array})["image"]
    assert checked.dtype == np.dtype("<f4")
    assert checked.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "input 'image' is missing; the model takes 'image'"),
        ({"picture": 1}, "input 'image' is missing; input 'picture' is unknown; the model takes 'image'"),
        ({"image": 1, 2: 3}, "input 2 is unknown"),
        (
            {"image": np.ones((1, 2, 3))},
            "input 'image' must be FP32, but is FP64; cast it, for example with .astype('float32')",
        ),
        ({"image": np.ones((1, 2, 3), np.int32)}, "must be FP32, but is INT32"),
        (
            {"image": np.ones((1, 2, 3), np.complex64)},
            "input 'image' must be FP32: numpy dtype complex64 has no OIP v2 datatype",
        ),
        ({"image": np.ones((1, 2, 3), "M8[s]")}, "input 'image' must be FP32"),
        (
            {"image": np.ones((2, 3), np.float32)},
            "must have the shape of image FP32 [rows, 2, 3], rows first, but has [2, 3]",
        ),
        ({"image": np.ones((1, 3, 2), np.float32)}, "but has [1, 3, 2]"),
        ({"image": np.ones((1, 2, 3, 1), np.float32)}, "but has [1, 2, 3, 1]"),
        ({"image": np.float32(1)}, "but has []"),
        ({"image": np.array(1, np.float32)}, "but has []"),
        ({"image": 5}, "but has []"),
        ({"image": []}, "but has [0]"),
        ({"image": np.ones((0, 2, 3), np.float32)}, "input 'image' has zero rows; a request holds at least one"),
        ({"image": "text"}, "input 'image' must be FP32, but holds text"),
        ({"image": [[[1, 2, 3], [4, 5, "6"]]]}, "input 'image' must be FP32, but holds text"),
        ({"image": None}, "input 'image' must be FP32, but holds elements of type NoneType"),
        ({"image": [[[1, 2, 3], [4, 5, None]]]}, "NoneType"),
        ({"image": [[[1, 2, 3], [4, 5]]]}, "input 'image' is not a regular array of FP32"),
        ({"image": {"a": 1}}, "input 'image' must be FP32, but holds elements of type dict"),
        ({"image": [[[True] * 3] * 2]}, "values of numpy type bool"),
        ([1, 2], "the inputs must be a dict of name → array, not list"),
        (np.ones((1, 2, 3), np.float32), "the inputs must be a dict of name → array, not ndarray"),
        (None, "not NoneType"),
    ],
    ids=range(25),
)
def test_each_mismatch_has_its_line(given: Any, expected: str) -> None:
    assert expected in refusal(IMAGE, given)


def test_a_thousand_unknown_names_are_not_all_quoted() -> None:
    given = {f"{number}" * 100: 1 for number in range(1000)}
    assert "995 more are unknown" in refusal(IMAGE, {**given, "image": 1})


def test_all_inputs_have_the_same_rows() -> None:
    given = {"ids": np.zeros((2, 4), np.int64), "mask": np.zeros((3, 4), bool)}
    assert "the same number of rows, but they have: ids 2, mask 3" in refusal(TOKENS, given)


@pytest.mark.parametrize("rows", [1, 10**12])
def test_a_request_holds_some_data(rows: int) -> None:
    # Without data, a request could claim any number of rows.
    given = {"ids": np.zeros((rows, 0), np.int64), "mask": np.zeros((rows, 0), bool)}
    assert "every input has an empty dimension" in refusal(TOKENS, given)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_nan_and_infinity_are_refused_where_a_model_forbids_them(datatype: str, bad: float) -> None:
    given: dict[str, Any] = {spec.name: np.ones(2, DTYPES[spec.datatype]) for spec in FINITE.inputs}
    FINITE.check_inputs(given)
    given[datatype][1] = bad
    assert f"input {datatype!r} holds NaN or infinity, which this model forbids" in refusal(FINITE, given)
    given[datatype] = [1.0, bad]
    assert "NaN or infinity" in refusal(FINITE, given)


def test_nan_is_taken_where_a_model_allows_it() -> None:
    assert np.isnan(IMAGE.check_inputs({"image": np.full((1, 2, 3), np.nan, np.float32)})["image"]).all()


@pytest.mark.parametrize(
    "value",
    [["one", b"two"], np.array(["one", "two"]), np.array([b"one", b"two"]), np.array(["one", "two"], dtype=object)],
)
def test_every_kind_of_text_reaches_the_model_as_bytes(value: Any) -> None:
    assert WORDS.check_inputs({"words": value})["words"].tolist() == [b"one", b"two"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["a", 1], dtype=object), "must be BYTES (strings), but holds int"),
        (np.array([None], dtype=object), "but holds NoneType"),
        (["\ud800"], "lone surrogate"),
        (np.array(["\ud800"], dtype=object), "lone surrogate"),
        ([1], "but holds int"),
        (["a", ["b"]], "but holds list"),
        ("a", "but has []"),
        (np.ones(2), "must be BYTES, but is FP64"),
    ],
    ids=range(8),
)
def test_what_is_no_text_is_refused_for_bytes(value: Any, expected: str) -> None:
    message = refusal(WORDS, {"words": value})
    assert "input 'words'" in message
    assert expected in message


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=15,
)


@given(st.one_of(json_values, st.dictionaries(st.sampled_from(["image", "ids", "mask", "words"]), json_values)))
def test_any_json_fits_or_is_a_mismatch(given: Any) -> None:
    for model in (IMAGE, TOKENS, WORDS):
        try:
            checked = model.check_inputs(given)
        except SignatureMismatch:
            continue
        assert all(checked[spec.name].dtype == DTYPES[spec.datatype] for spec in model.inputs)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x", "datatype": "FLOAT"},
        {"name": "x", "datatype": "fp32"},
        {"name": "", "datatype": "FP32"},
        {"name": "two\nlines", "datatype": "FP32"},
        {"name": "NUL \0", "datatype": "FP32"},
        {"name": "x", "datatype": "FP32", "shape": [0]},
        {"name": "x", "datatype": "FP32", "shape": [-2]},
        {"name": "x", "datatype": "FP32", "shape": [1] * 32},
    ],
    ids=range(8),
)
def test_an_impossible_spec_is_a_package_error(fields: dict[str, Any]) -> None:
    with pytest.raises(PackageError):
        msgspec.convert(fields, TensorSpec)


def test_a_spec_is_described_as_people_read_it() -> None:
    spec = TensorSpec(name="image", datatype="FP32", shape=(1, -1))
    assert spec.describe() == "image FP32 [rows, 1, ?]"
    assert spec.varies
    assert ml_dtypes.bfloat16 == DTYPES["BF16"]


STEP = Signature(
    inputs=(
        TensorSpec(name="x", datatype="FP32", shape=(8,)),
        TensorSpec(name="state", datatype="FP32", shape=(2, 8), rows_at=1),
        TensorSpec(name="past", datatype="FP32", shape=(-1, 4), symbols=("past", ""), optional=True),
        TensorSpec(name="rate", datatype="INT64", per_request=True),
    ),
    outputs=(TensorSpec(name="next", datatype="FP32", shape=(2, 8), rows_at=1),),
)


def step(rows: int = 3, **changes: object) -> dict[str, object]:
    return {
        "x": np.ones((rows, 8), np.float32),
        "state": np.ones((2, rows, 8), np.float32),
        "rate": 16_000,
    } | changes


def test_rows_are_counted_where_each_input_holds_them() -> None:
    arrays = STEP.check_inputs(step(5))
    assert STEP.rows_of(arrays) == 5
    assert (arrays["rate"].shape, arrays["rate"].dtype, arrays["rate"].item()) == ((), np.dtype(np.int64), 16_000)
    wrong = step(5, state=np.ones((2, 4, 8), np.float32))
    assert "the same number of rows, but they have: x 5, state 4" in refusal(STEP, wrong)


def test_a_tensor_whose_rows_are_elsewhere_is_told_so() -> None:
    wrong = step(5, state=np.ones((5, 2, 8), np.float32))
    assert "'state' must have the shape of state FP32 [2, rows, 8], rows at 1, but has [5, 2, 8]" in refusal(
        STEP, wrong
    )


def test_a_parameter_has_its_whole_shape_and_no_rows() -> None:
    assert "'rate' must have the shape of rate INT64 [], but has [3]" in refusal(STEP, step(rate=[1, 2, 3]))
    only = Signature(inputs=(TensorSpec(name="k", datatype="FP32", shape=(4,), per_request=True),), outputs=())
    assert only.rows_of(only.check_inputs({"k": [1, 2, 3, 4]})) == 1


def test_an_optional_input_may_be_absent_given_or_empty_beside_others() -> None:
    assert "past" not in STEP.check_inputs(step())
    assert STEP.check_inputs(step(past=np.ones((3, 6, 4), np.float32)))["past"].shape == (3, 6, 4)
    assert STEP.check_inputs(step(past=np.ones((3, 0, 4), np.float32)))["past"].shape == (3, 0, 4)
    assert "'rate' is missing; the model takes 'x', 'state', 'past' (optional), 'rate'" in refusal(
        STEP, {name: value for name, value in step().items() if name != "rate"}
    )


def test_a_request_of_optional_inputs_still_needs_one() -> None:
    either = Signature(inputs=(TensorSpec(name="x", datatype="FP32", optional=True),), outputs=())
    assert "the request has no inputs" in refusal(either, {})


def test_lengths_of_one_name_must_agree_and_the_error_names_it() -> None:
    length: dict[str, Any] = {"datatype": "FP32", "shape": (-1,), "symbols": ("len",)}
    pair = Signature(inputs=(TensorSpec(name="a", **length), TensorSpec(name="b", **length)), outputs=())
    given = {"a": np.ones((2, 5), np.float32), "b": np.ones((2, 4), np.float32)}
    assert "the dimension 'len' must be the same everywhere, but it is 5 in 'a' and 4 in 'b'" in refusal(pair, given)
    pair.check_inputs(given | {"b": given["a"]})
    assert [spec.describe() for spec in pair.inputs] == ["a FP32 [rows, len]", "b FP32 [rows, len]"]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"rows_at": 3}, "rows_at is 3, but with its rows the tensor has the dimensions 0 to 2"),
        ({"rows_at": -1}, "rows_at is -1"),
        ({"rows_at": 1, "per_request": True}, "leave rows_at out"),
        ({"symbols": ("len",)}, "2 sizes, but 1 symbols"),
        ({"symbols": ("", "width")}, "only sizes of -1 have symbols"),
        ({"sample_shape": (16,)}, "sample_shape must be sizes above 0"),
        ({"sample_shape": (16, 5)}, "sample_shape must be sizes above 0"),
        ({"sequence": True}, "is a sequence; it must be per_request or have its rows_at 1"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(fields: dict[str, Any], cause: str) -> None:
    with pytest.raises(PackageError, match=re.escape(cause)):
        TensorSpec(name="x", datatype="FP32", shape=(-1, 4), **fields)


def test_one_row_without_the_dimension_of_rows_is_told_the_remedy() -> None:
    assert refusal(IMAGE, {"image": np.ones((2, 3), np.float32)}).endswith(
        "but has [2, 3]; one row goes as image[None], or in another pair of brackets"
    )
    assert "None" not in refusal(IMAGE, {"image": np.ones((2, 4), np.float32)})
