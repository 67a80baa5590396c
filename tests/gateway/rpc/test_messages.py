"""Requests and answers as messages, without a server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tests.gateway.rpc.client import request, row
from tests.runtimes.remote.damage import damaged, read_or_error
from tests.runtimes.remote.equality import same

from headrace.contracts.errors import HeadraceError
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.contracts.tensors.oip_http import BINARY_ONLY
from headrace.gateway.oip.answer import Identity
from headrace.gateway.oip.errors import MalformedBody, MalformedInput, NotSupported
from headrace.gateway.rpc.answer import write_answer
from headrace.gateway.rpc.request import ModelRequest, read_request
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.oip.messages import read_answer

IDENTITY = Identity("m", "3", "mine")
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
TYPED = st.sampled_from([dtype for name, dtype in DTYPES.items() if name not in (*BINARY_ONLY, "BYTES")])
STRINGS = st.lists(st.binary(max_size=50), max_size=9).map(lambda items: np.array([*items, b""], object))


@given(arrays.arrays(TYPED | st.just(np.dtype(np.float16)), SHAPES) | STRINGS)
def test_any_raw_tensor_is_read_and_written(x: NDArray[Any]) -> None:
    asked = read_request(request("m", {"x": x}).SerializeToString())
    assert asked.request.parameters.binary
    assert same(asked.request.inputs["x"], x)
    assert same(read_answer(write_answer(IDENTITY, {"y": x}, raw=True), "mine").outputs["y"], x)


@given(arrays.arrays(TYPED, SHAPES) | STRINGS)
def test_any_typed_tensor_is_read_and_written(x: NDArray[Any]) -> None:
    asked = read_request(request("m", {"x": x}, raw=False).SerializeToString())
    assert not asked.request.parameters.binary
    assert same(asked.request.inputs["x"], x)
    assert same(read_answer(write_answer(IDENTITY, {"y": x}, raw=False), "mine").outputs["y"], x)


WHOLE = [
    request("m", {"x": np.arange(6, dtype=np.int8).reshape(2, 3)}, raw=raw, outputs=["y"], parameters={"timeout": 5})
    for raw in (True, False)
]


@given(damaged(st.sampled_from([message.SerializeToString() for message in WHOLE])))
def test_a_damaged_request_is_read_or_refused(received: bytes) -> None:
    assert isinstance(read_or_error(read_request, received, HeadraceError), ModelRequest | HeadraceError)


def test_names_and_parameters_are_read() -> None:
    asked = read_request(
        row("m", 1, version="3", outputs=["y"], parameters={"timeout": 2_000_000, "priority": 1}).SerializeToString()
    )
    assert (asked.model, asked.version, asked.request.id) == ("m", "3", "mine")
    assert asked.request.outputs == {"y": True}
    assert (asked.request.parameters.timeout_s, asked.request.parameters.priority) == (2.0, 9)


def test_a_priority_of_64_unsigned_bits_is_read() -> None:
    message = row("m", 1)
    message.parameters["priority"].uint64_param = 2
    assert read_request(message.SerializeToString()).request.parameters.priority == 8


def test_a_parameter_without_a_value_is_none() -> None:
    message = row("m", 1)
    message.parameters["timeout"].SetInParent()
    assert read_request(message.SerializeToString()).request.parameters.timeout_s is None


def _without_raw(message: oip.ModelInferRequest) -> None:
    del message.raw_input_contents[:]


def _typed(field: str, *values: object) -> Callable[[oip.ModelInferRequest], None]:
    def change(message: oip.ModelInferRequest) -> None:
        _without_raw(message)
        getattr(message.inputs[0].contents, field).extend(values)

    return change


def _both(message: oip.ModelInferRequest) -> None:
    message.inputs[0].contents.fp32_contents.extend([1, 2])


def _raw_too_many(message: oip.ModelInferRequest) -> None:
    message.raw_input_contents.append(b"")


def _two_types(message: oip.ModelInferRequest) -> None:
    _typed("fp32_contents", 1, 2)(message)
    message.inputs[0].contents.int_contents.extend([1, 2])


def _set(name: str, value: object) -> Callable[[oip.ModelInferRequest], None]:
    return lambda message: setattr(message.inputs[0], name, value)


def _shape(*sizes: int) -> Callable[[oip.ModelInferRequest], None]:
    def change(message: oip.ModelInferRequest) -> None:
        message.inputs[0].shape[:] = sizes

    return change


def _raw(content: bytes) -> Callable[[oip.ModelInferRequest], None]:
    def change(message: oip.ModelInferRequest) -> None:
        message.raw_input_contents[0] = content

    return change


def _twice(message: oip.ModelInferRequest) -> None:
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    message.raw_input_contents.append(b"\0" * 4)


def _in_shared_memory(message: oip.ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "a"


def _classified(message: oip.ModelInferRequest) -> None:
    message.outputs.add(name="y").parameters["classification"].int64_param = 3


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (_without_raw, MalformedInput, "input 'x' of shape [1, 2] has 0 values in fp32_contents, and needs 2"),
        (_typed("fp32_contents", 1), MalformedInput, "has 1 values in fp32_contents, and needs 2"),
        (_typed("int_contents", 1, 2), MalformedInput, "has 0 values in fp32_contents"),
        (_both, MalformedInput, "input 'x' has contents and raw_input_contents, of which a request must use one"),
        (_two_types, MalformedInput, "contents of several types: int_contents, fp32_contents"),
        (_raw_too_many, MalformedBody, "the request has 1 inputs, but raw_input_contents of 2"),
        (_raw(b"\0" * 7), MalformedInput, "carries 7 bytes, but FP32 of shape [1, 2] needs 8"),
        (_shape(1, -2), MalformedInput, "has the impossible shape [1, -2]"),
        (_shape(2**62, 2**62), MalformedInput, "has the impossible shape"),
        (_set("datatype", "FP7"), MalformedBody, "the datatype 'FP7', which does not exist"),
        (_twice, MalformedBody, "the input 'x' is there twice"),
        (_in_shared_memory, NotSupported, "shared_memory_region asks for shared memory"),
        (_classified, NotSupported, "classification asks for"),
        (lambda message: setattr(message, "id", "x" * 1001), MalformedBody, "the id has more than 1000 characters"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    change: Callable[[oip.ModelInferRequest], None], kind: type[HeadraceError], words: str
) -> None:
    message = row("m", 1, 2)
    change(message)
    with pytest.raises(kind) as raised:
        read_request(message.SerializeToString())
    assert words in raised.value.message


def test_typed_values_outside_their_datatype_are_refused() -> None:
    message = request("m", {"x": np.array([[1]], np.int8)}, raw=False)
    message.inputs[0].contents.int_contents[0] = 128
    with pytest.raises(MalformedInput, match="input 'x' has values outside its own datatype"):
        read_request(message.SerializeToString())


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_half_width_floats_are_never_typed(datatype: str) -> None:
    array = np.ones((1, 1), DTYPES[datatype])
    message = row("m", 1, raw=False)
    message.inputs[0].datatype = datatype
    with pytest.raises(MalformedInput, match="no typed contents; send raw_input_contents"):
        read_request(message.SerializeToString())
    with pytest.raises(MalformedBody, match=f"output 'y' is {datatype}, which has no typed contents"):
        write_answer(IDENTITY, {"y": array}, raw=False)


def test_an_answer_is_what_protobuf_would_write() -> None:
    outputs = {"a": np.arange(3, dtype=np.int64), "b": np.array([[b"x", "ä"]], object)}
    for raw in (True, False):
        written = write_answer(IDENTITY, outputs, raw=raw)
        found = oip.ModelInferResponse.FromString(written)
        assert (found.model_name, found.model_version, found.id) == ("m", "3", "mine")
        assert oip.ModelInferResponse.FromString(found.SerializeToString()) == found
        answer = read_answer(written, "mine").outputs
        assert answer["a"].tolist() == [0, 1, 2]
        assert list(itertools.chain(*answer["b"].tolist())) == [b"x", "ä".encode()]
