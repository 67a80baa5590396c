"""What is written is read back exactly, and no forged body gets past the reader as anything but an error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from headrace.contracts.errors import HeadraceError
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import DTYPES, all_finite, datatype_of
from headrace.contracts.tensors.oip_http import BINARY_ONLY
from headrace.contracts.tensors.raw import pack, unpack
from headrace.gateway.oip.answer import Identity, chosen_outputs, write_answer
from headrace.gateway.oip.errors import MalformedBody, MalformedInput, NotInJson
from headrace.gateway.oip.request import InferRequest, read_request
from headrace.runtimes.remote.oip.http_codec import Question, read_answer, split, write_binary, write_json

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
JSON = [name for name in DTYPES if name not in BINARY_ONLY]


@st.composite
def arrays(draw: st.DrawFn, datatypes: list[str], *, finite: bool = False, text: bool = False) -> NDArray[Any]:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(shapes)
    count = int(np.prod(shape))
    if datatype == "BYTES":
        elements = st.text(st.characters(codec="utf-8"), max_size=9).map(str.encode) if text else st.binary(max_size=9)
        array = np.empty(count, dtype=object)
        array[:] = draw(st.lists(elements, min_size=count, max_size=count))
        return array.reshape(shape)
    if datatype == "BOOL":
        return draw(hnp.arrays(np.bool_, shape))
    raw = draw(hnp.arrays(np.uint8, (*shape, DTYPES[datatype].itemsize)))
    array = raw.view(DTYPES[datatype]).reshape(shape)
    return array if all_finite(array) or not finite else np.zeros_like(array)


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and one.tolist() == other.tolist()
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def joined(parts: list[Any]) -> bytes:
    return b"".join(map(bytes, parts))


@given(st.dictionaries(names, arrays(list(DTYPES)), max_size=4))
def test_bytes_of_a_client_are_read_exactly(tensors: dict[str, NDArray[Any]]) -> None:
    written = write_binary(Question(request_id="r", inputs=tensors))
    request = read_request(joined(written.body), written.headers["Inference-Header-Content-Length"])
    assert request.id == "r"
    assert list(request.inputs) == list(tensors)
    assert all(same(request.inputs[name], array) for name, array in tensors.items())
    assert request.parameters.binary


@given(st.dictionaries(names, arrays(JSON, text=True), max_size=4))
def test_json_of_a_client_is_read_exactly_but_for_the_bits_of_a_nan(tensors: dict[str, NDArray[Any]]) -> None:
    written = write_json(Question(request_id="r", inputs=tensors))
    request = read_request(joined(written.body), None)
    for name, array in tensors.items():
        found = request.inputs[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


@given(arrays(JSON, finite=True, text=True))
def test_nested_values_are_read_like_flat_ones(array: NDArray[Any]) -> None:
    values = [each.decode() for each in array.reshape(-1).tolist()] if array.dtype == object else array.tolist()
    nested = np.array(values, dtype=object).reshape(array.shape).tolist() if array.dtype == object else values
    given_ = {"name": "x", "shape": list(array.shape), "datatype": datatype_of(array.dtype), "data": nested}
    if array.ndim == 0:
        given_["data"] = [nested]
    elif 0 in array.shape[1:]:
        return  # nested lists don't show sizes behind a size of 0
    found = read_request(json.dumps({"inputs": [given_]}).encode(), None).inputs["x"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@given(st.dictionaries(names, arrays(list(DTYPES), finite=True, text=True), max_size=4), st.data())
def test_answers_are_read_by_a_client_exactly(tensors: dict[str, NDArray[Any]], data: st.DataObject) -> None:
    binary = {
        name: datatype_of(array.dtype) in BINARY_ONLY or data.draw(st.booleans()) for name, array in tensors.items()
    }
    written = write_answer(Identity("m", "3", "r"), tensors, binary.__getitem__, "refuse")
    length = None if written.json_bytes is None else str(written.json_bytes)
    assert (length is not None) == any(binary.values())
    answer = read_answer(*split(written.body, length), Question(request_id="r", inputs={}))
    assert answer.version == "3"
    assert all(same(answer.outputs[name], array) for name, array in tensors.items())


@given(arrays(["FP32", "FP64"]))
def test_what_json_has_no_form_for_is_refused_or_written_as_asked(array: NDArray[Any]) -> None:
    def write(nonfinite: str) -> bytes:
        return write_answer(Identity("m", "", "r"), {"y": array}, lambda _: False, nonfinite).body

    if not all_finite(array):
        with pytest.raises(NotInJson) as caught:
            write("refuse")
        assert caught.value.field == "y"
    else:
        orjson.loads(write("refuse"))
    as_null = orjson.loads(write("null"))["outputs"][0]["data"]
    wanted = [value if np.isfinite(value) else None for value in array.reshape(-1).tolist()]
    assert as_null == [value if value is None else pytest.approx(value) for value in wanted]
    as_literal = json.loads(write("literal"))["outputs"][0]["data"]
    np.testing.assert_array_equal(np.array(as_literal, array.dtype), array.reshape(-1))


@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers(-5, 300).map(str))
def test_any_bytes_are_a_request_or_an_error(body: bytes, length: str | None) -> None:
    with contextlib.suppress(HeadraceError):
        read_request(body, length)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
tensors_like = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", ""]) | scalars,
        "shape": st.lists(st.integers(-2, 5) | st.integers(), max_size=4) | values,
        "datatype": st.sampled_from(list(DTYPES)) | scalars,
        "data": values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-5, 40) | values}) | values,
    },
)
requests_like = st.fixed_dictionaries(
    {},
    optional={
        "id": scalars,
        "inputs": st.lists(tensors_like, max_size=3) | values,
        "outputs": st.lists(tensors_like, max_size=2) | values,
        "parameters": st.dictionaries(
            st.sampled_from(["timeout", "priority", "binary_data_output", "nonfinite", "sequence_id"]), values
        )
        | values,
    },
)


@given(requests_like, st.binary(max_size=40), st.integers(-3, 3))
def test_any_json_is_a_request_or_an_error(document: Any, rest: bytes, off: int) -> None:
    text = json.dumps(document).encode()
    with contextlib.suppress(HeadraceError):
        request = read_request(text + rest, str(len(text) + off))
        assert isinstance(request, InferRequest)


@given(arrays([name for name in DTYPES if name != "BYTES"]), st.integers(-9, 9).filter(bool))
def test_a_size_that_is_not_that_of_the_shape_is_refused(array: NDArray[Any], off: int) -> None:
    raw = bytes(pack(array))
    size = len(raw) + off
    text = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": array.shape,
                    "datatype": datatype_of(array.dtype),
                    "parameters": {"binary_data_size": size},
                }
            ]
        }
    )
    with pytest.raises(MalformedInput) as caught:
        read_request(text + raw + bytes(max(off, 0)), str(len(text)))
    assert caught.value.message.startswith("input 'x' ")
    assert caught.value.field == "inputs[0]"


@given(arrays(["BYTES"]), st.data())
def test_lengths_within_bytes_elements_are_checked(array: NDArray[Any], data: st.DataObject) -> None:
    raw = bytearray(bytes(pack(array)))
    if not raw:
        return
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = (raw[at] + data.draw(st.integers(1, 255))) % 256
    with contextlib.suppress(ValueError):
        found = unpack(raw, "BYTES", array.shape)
        assert bytes(pack(found)) == bytes(raw)


def test_a_tensor_may_begin_at_any_byte() -> None:
    tensors: Tensors = {"a": np.array([True]), "b": np.arange(3, dtype=np.int64), "c": np.array([1.5])}
    written = write_binary(Question(request_id="r", inputs=tensors))
    found = read_request(joined(written.body), written.headers["Inference-Header-Content-Length"]).inputs
    assert all(each.flags.aligned and same(each, tensors[name]) for name, each in found.items())


def test_outputs_are_those_asked_for_in_that_order() -> None:
    outputs = {"a": np.zeros(1), "b": np.ones(1), "c": np.ones(1)}
    request = read_request(b'{"inputs": [], "outputs": [{"name": "c"}, {"name": "a"}]}', None)
    assert list(chosen_outputs(outputs, request)) == ["c", "a"]
    request = read_request(b'{"inputs": [], "outputs": [{"name": "c"}, {"name": "z"}]}', None)
    with pytest.raises(MalformedBody, match="it has 'a', 'b', 'c'") as caught:
        chosen_outputs(outputs, request)
    assert caught.value.field == "outputs[1].name"


def test_the_id_of_a_client_is_returned_as_it_came() -> None:
    identity = Identity("m", "", 'a"\\é\n')
    assert orjson.loads(write_answer(identity, {}, lambda _: True, "refuse").body) == {
        "model_name": "m",
        "id": 'a"\\é\n',
        "outputs": [],
    }
