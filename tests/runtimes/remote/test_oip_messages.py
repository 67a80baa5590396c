"""The Open Inference Protocol's messages: any tensors go out and come back, raw and one by one; lies are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import DTypeLike, NDArray
from tests.runtimes.remote.damage import damaged, read_or_error
from tests.runtimes.remote.equality import same

from headrace.contracts import PackageError, TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.runtimes.remote.base import BadAnswer, Misconfigured, RemoteSignature
from headrace.runtimes.remote.encoding.raw import pack
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.wire import serialized
from headrace.runtimes.remote.oip.messages import Batch, read_answer, read_metadata

BATCH = Batch("digits", "3", "7-1", ["y"])
HALVES = ("FP16", "BF16")

WHOLE_WIDTH = st.sampled_from([dtype for name, dtype in DTYPES.items() if name not in ("BYTES", *HALVES)])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
NUMBERS = arrays.arrays(WHOLE_WIDTH | st.just(np.dtype(np.float16)), SHAPES)
STRINGS = st.lists(st.binary(max_size=200), min_size=1, max_size=20).map(lambda items: np.array([*items, b""], object))


def echo(request: bytes) -> bytes:
    """Return the answer of a server whose outputs are its inputs, in the form in which they came."""
    asked = oip.ModelInferRequest.FromString(request)
    response = oip.ModelInferResponse(model_name=asked.model_name, model_version=asked.model_version, id=asked.id)
    for tensor in asked.inputs:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        output.contents.MergeFrom(tensor.contents)
    response.raw_output_contents.extend(asked.raw_input_contents)
    return serialized(response)


@given(NUMBERS | STRINGS, NUMBERS)
def test_any_tensors_go_out_raw_and_come_back(x: NDArray[Any], k: NDArray[Any]) -> None:
    answer = read_answer(echo(BATCH.with_raw({"x": x, "k": k.T})), "7-1")
    assert answer.version == "3"
    assert same(answer.outputs["x"], x)
    assert same(answer.outputs["k"], np.ascontiguousarray(k.T))


@given(arrays.arrays(WHOLE_WIDTH, SHAPES), arrays.arrays(WHOLE_WIDTH, SHAPES))
def test_any_numbers_go_out_one_by_one_and_come_back(x: NDArray[Any], k: NDArray[Any]) -> None:
    answer = read_answer(echo(BATCH.with_values({"x": x, "k": k.T})), "7-1")
    np.testing.assert_array_equal(answer.outputs["x"], x)
    np.testing.assert_array_equal(answer.outputs["k"], k.T)
    assert answer.outputs["x"].dtype == x.dtype


def test_a_request_is_that_of_protobuf_itself() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    text = np.array([b"a", b""], object)
    expected = oip.ModelInferRequest(
        model_name="digits",
        model_version="3",
        id="7-1",
        raw_input_contents=[x.tobytes(), b"\x01\0\0\0a\0\0\0\0"],
    )
    expected.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    expected.inputs.add(name="t", datatype="BYTES", shape=[2])
    expected.outputs.add(name="y")
    assert BATCH.with_raw({"x": x, "t": text}) == serialized(expected)


@pytest.mark.parametrize("datatype", [*HALVES, "BYTES"])
def test_what_torchserve_can_not_take_is_refused_by_name(datatype: str) -> None:
    with pytest.raises(Misconfigured, match=f"input 'x' is {datatype}"):
        BATCH.with_values({"x": np.array([1]).astype(DTYPES[datatype])})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_widths_one_by_one_are_read_from_wider_floats(dtype: DTypeLike) -> None:
    response = oip.ModelInferResponse()
    output = response.outputs.add(name="y", datatype=datatype_of(dtype), shape=[2])
    output.contents.fp32_contents.extend([1.5, -2.0])
    found = read_answer(serialized(response), "1").outputs["y"]
    assert found.dtype == dtype
    assert found.tolist() == [1.5, -2.0]


def response(*outputs: tuple[str, str, list[int]], raw: list[bytes] | None = None) -> oip.ModelInferResponse:
    message = oip.ModelInferResponse(id="7-1")
    for name, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_output_contents.extend(raw or [])
    return message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (response(("y", "FP32", [2]), raw=[b"\0" * 7]), "7 bytes"),
        (response(("y", "FP32", [2])), "0 values"),
        (response(("y", "FP31", [2]), raw=[b"\0" * 8]), "unknown datatype 'FP31'"),
        (response(("y", "FP31", [2])), "unknown datatype 'FP31'"),
        (response(("y", "FP32", [2]), ("z", "FP32", [2]), raw=[b"\0" * 8]), "2 outputs, but the contents of 1"),
        (response(("y", "FP32", [2]), ("y", "FP32", [2]), raw=[b"\0" * 8] * 2), "'y' twice"),
        (response(("y", "FP32", [-1]), raw=[b""]), "impossible shape"),
        (response(("y", "BYTES", [2]), raw=[b"\5\0\0\0abc\0"]), "cut off"),
        (response(("y", "BYTES", [1 << 60]), raw=[b"\0" * 8]), "impossible shape"),
        (response(("y", "BOOL", [2]), raw=[b"\1\2"]), "0 and 1"),
    ],
)
def test_an_answer_that_is_not_what_it_says_is_bad(message: oip.ModelInferResponse, words: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        read_answer(serialized(message), "7-1")
    assert words in str(caught.value)


def test_numbers_outside_their_datatype_are_bad() -> None:
    message = response(("y", "INT8", [1]))
    message.outputs[0].contents.int_contents.append(128)
    with pytest.raises(BadAnswer, match="outside its own datatype"):
        read_answer(serialized(message), "7-1")


def test_the_answer_to_another_request_is_bad() -> None:
    with pytest.raises(BadAnswer, match="answers request '7-1', not 7-2"):
        read_answer(serialized(response()), "7-2")


def answered(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an answer of these outputs, as raw bytes."""
    found = oip.ModelInferResponse(model_name="digits", model_version="3", id="7-1")
    for name, array in outputs.items():
        found.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        found.raw_output_contents.append(bytes(pack(array)))
    return serialized(found)


SMALL = arrays.arrays(WHOLE_WIDTH, arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
ANSWERS = st.builds(lambda y, z: answered({"y": y, "z": z}), SMALL, SMALL | STRINGS)
ANSWERS_BY_VALUES = st.builds(lambda y: echo(BATCH.with_values({"y": y})), SMALL)


#: Of tensors that may be lies: datatypes, shapes and contents.
DATATYPES = st.sampled_from(["FP32", "INT8", "BOOL", "BYTES", "FP16", "?"])
LYING_SHAPES = st.lists(st.sampled_from([1, 2, 0, -1, 1 << 62]), max_size=2)
RAW = st.sampled_from([b"", b"\0" * 2, b"\1" * 4, b"\2", b"\3\0\0\0ab", b"\1\0\0\0a"])
VALUES = st.sampled_from(["fp32_contents", "int_contents", "bool_contents"])


@st.composite
def lies(draw: st.DrawFn) -> bytes:
    """Return an answer whose parts need not fit together."""
    found = oip.ModelInferResponse(id=draw(st.sampled_from(["7-1", "", "8"])))
    for name in draw(st.lists(st.sampled_from("yz"), max_size=2)):
        output = found.outputs.add(name=name, datatype=draw(DATATYPES), shape=draw(LYING_SHAPES))
        getattr(output.contents, draw(VALUES)).extend(draw(st.lists(st.sampled_from([0, 1, 100]), max_size=3)))
    found.raw_output_contents.extend(draw(st.just([]) | st.tuples(*[RAW] * len(found.outputs))))
    return serialized(found)


@settings(max_examples=400)
@given(lies() | damaged(ANSWERS | ANSWERS_BY_VALUES) | st.binary(max_size=200))
def test_any_bytes_are_outputs_that_can_be_sent_on_or_a_bad_answer(received: bytes) -> None:
    answer = read_or_error(lambda data: read_answer(data, "7-1"), received, BadAnswer)
    if isinstance(answer, Exception):
        assert str(answer).startswith(("the server's answer ", "the server's output ", "the server answers "))
        return
    again = read_answer(answered(answer.outputs), "7-1").outputs
    assert list(again) == list(answer.outputs)
    assert all(same(again[name], answer.outputs[name]) for name in again)


def described(found: RemoteSignature) -> bytes:
    """Return the description of a model with this signature."""
    message = oip.ModelMetadataResponse(name="digits", platform=found.platform, versions=[found.version])
    for side, specs in ((message.inputs, found.inputs), (message.outputs, found.outputs)):
        for spec in specs:
            side.add(name=spec.name, datatype=spec.datatype, shape=[found.max_rows or -1, *spec.shape])
    return serialized(message)


SPECS = st.builds(
    lambda name, datatype, shape: TensorSpec(name=name, datatype=datatype, shape=tuple(shape)),
    st.sampled_from(["x", "y", "image"]),
    st.sampled_from(list(DTYPES)),
    st.lists(st.sampled_from([-1, 1, 8]), max_size=3),
)
SIGNATURES = st.builds(
    lambda inputs, outputs, rows: RemoteSignature(
        inputs=tuple(inputs), outputs=tuple(outputs), version="3", platform="onnx", max_rows=rows
    ),
    st.lists(SPECS, max_size=2),
    st.lists(SPECS, max_size=2),
    st.sampled_from([0, 8]),
)


@given(SIGNATURES)
def test_any_signature_is_read_as_it_was_described(signature: RemoteSignature) -> None:
    found = read_metadata(described(signature))
    assert (found.inputs, found.outputs) == (signature.inputs, signature.outputs)
    rows = signature.max_rows if signature.inputs or signature.outputs else 0
    assert (found.max_rows, found.row_sizes) == (rows, (rows,) if rows else ())


@st.composite
def strange_models(draw: st.DrawFn) -> bytes:
    """Return a description that may be one of no model for batches."""
    message = oip.ModelMetadataResponse(name="digits", versions=draw(st.lists(st.sampled_from("12"), max_size=2)))
    for side in (message.inputs, message.outputs):
        for name in draw(st.lists(st.sampled_from(["x", "y", ""]), max_size=2)):
            side.add(name=name, datatype=draw(DATATYPES), shape=draw(LYING_SHAPES))
    return serialized(message)


@given(strange_models() | damaged(SIGNATURES.map(described)) | st.binary(max_size=200))
def test_any_bytes_are_a_signature_that_can_be_described_or_an_error_of_the_package(received: bytes) -> None:
    found = read_or_error(read_metadata, received, BadAnswer, PackageError)
    if isinstance(found, Exception):
        assert "server's" in str(found) or str(found).startswith("tensor ")
        return
    assert found.max_rows >= 0
    again = read_metadata(described(found))
    assert (again.inputs, again.outputs, again.max_rows) == (found.inputs, found.outputs, found.max_rows)


def test_metadata_is_a_signature() -> None:
    message = oip.ModelMetadataResponse.FromString(b"")
    message.name, message.platform = "digits", "onnx"
    message.versions.extend(["2"])
    message.inputs.add(name="x", datatype="FP32", shape=[-1, 8, 8])
    message.outputs.add(name="y", datatype="BYTES", shape=[-1, 1])
    found = read_metadata(serialized(message))
    assert [spec.describe() for spec in (*found.inputs, *found.outputs)] == ["x FP32 [rows, 8, 8]", "y BYTES [rows, 1]"]
    assert (found.version, found.platform) == ("2", "onnx")
    message.versions.append("3")
    assert read_metadata(serialized(message)).version == ""


def test_a_scalar_of_a_server_is_refused() -> None:
    message = oip.ModelMetadataResponse.FromString(b"")
    message.inputs.add(name="x", datatype="FP32", shape=[])
    with pytest.raises(PackageError, match="'x', a scalar"):
        read_metadata(serialized(message))
