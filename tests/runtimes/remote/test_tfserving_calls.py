"""TensorFlow Serving's messages: any tensors go out and come back, in either form; lies are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tests.runtimes.remote.damage import damaged, read_or_error
from tests.runtimes.remote.equality import same
from tests.runtimes.remote.error_lines import is_line_of

from headrace.contracts import PackageError
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.runtimes.remote.base import BadAnswer, Misconfigured, ModelNotReady, OtherSignature, ServerAway
from headrace.runtimes.remote.messages import tfserving
from headrace.runtimes.remote.messages.wire import serialized
from headrace.runtimes.remote.tfserving.calls import Target, check_status, read_answer
from headrace.runtimes.remote.tfserving.tensors import DATATYPES, read_tensor, write_tensor

TARGET = Target("digits", "serving_default")
STATES = tfserving.STATES
TYPES = tfserving.DATA_TYPES

NUMBERS = arrays.arrays(
    st.sampled_from([dtype for name, dtype in DTYPES.items() if name not in ("BYTES", "BF16")]),
    arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
)
STRINGS = st.lists(st.binary(max_size=200), min_size=1, max_size=20).map(lambda items: np.array([*items, b""], object))


def sent(array: NDArray[Any]) -> tfserving.TensorProto:
    return tfserving.TensorProto.FromString(b"".join(write_tensor(array)))


@given(NUMBERS | STRINGS)
def test_any_tensor_goes_out_and_comes_back(array: NDArray[Any]) -> None:
    assert same(read_tensor(sent(array), "x"), array)


@given(NUMBERS)
def test_any_order_of_memory_goes_out_row_by_row(array: NDArray[Any]) -> None:
    assert same(read_tensor(sent(array.T), "x"), np.ascontiguousarray(array.T))
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    assert same(read_tensor(sent(big_endian), "x"), array)


FIELDS = {
    "BOOL": "bool_val",
    "INT8": "int_val",
    "INT32": "int_val",
    "UINT16": "int_val",
    "INT64": "int64_val",
    "UINT32": "uint32_val",
    "UINT64": "uint64_val",
    "FP32": "float_val",
    "FP64": "double_val",
}


@given(
    arrays.arrays(
        st.sampled_from([DTYPES[name] for name in FIELDS]),
        arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    )
)
def test_values_one_by_one_are_read_as_the_tensor_they_are(array: NDArray[Any]) -> None:
    message = sent(array)
    message.tensor_content = b""
    getattr(message, FIELDS[datatype_of(array.dtype)]).extend(array.reshape(-1).tolist())
    found = read_tensor(message, "y")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def test_one_value_stands_for_a_tensor_of_equal_values() -> None:
    message = sent(np.zeros((2, 3), np.float32))
    message.tensor_content = b""
    message.float_val.append(1.5)
    assert read_tensor(message, "y").tolist() == [[1.5] * 3] * 2
    # However large it is; the check of its rows comes later.
    reshape(1 << 30, 1 << 10)(message)
    assert read_tensor(message, "y").shape == (1 << 30, 1 << 10)


def test_a_scalar_is_read_from_its_one_value() -> None:
    message = tfserving.TensorProto(dtype=TYPES["DT_FLOAT"])
    message.float_val.append(1.5)
    found = read_tensor(message, "loss")
    assert (found.shape, found.tolist()) == ((), 1.5)


def test_strings_are_read_from_tensor_content_too() -> None:
    message = sent(np.array([[b""], [b"b"]], object))
    message.string_val.clear()
    long = b"x" * 300
    message.tensor_content = bytes([0xAC, 0x02, 1]) + long + b"b"
    assert read_tensor(message, "y").tolist() == [[long], [b"b"]]


#: Makes a right tensor a wrong one.
Lie: TypeAlias = Callable[[tfserving.TensorProto], None]


def change(**fields: object) -> Lie:
    def apply(message: tfserving.TensorProto) -> None:
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)

    return apply


def reshape(*sizes: int) -> Lie:
    def apply(message: tfserving.TensorProto) -> None:
        message.tensor_shape.ClearField("dim")
        for size in sizes:
            message.tensor_shape.dim.add(size=size)

    return apply


def unknown_rank(message: tfserving.TensorProto) -> None:
    message.tensor_shape.unknown_rank = True


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (change(tensor_content=b"\0" * 23), "23 bytes"),
        (change(tensor_content=b"", float_val=[1.0, 2.0, 3.0]), "3 values"),
        (change(tensor_content=b""), "0 values"),
        (change(dtype=TYPES["DT_COMPLEX64"]), "DT_COMPLEX64"),
        (change(dtype=999), "datatype 999"),
        (change(dtype=TYPES["DT_BOOL"], tensor_content=b"\0\1\2\0\0\0"), "0 and 1"),
        (change(dtype=TYPES["DT_INT8"], tensor_content=b"", int_val=[1, 2, 3, 4, 5, 300]), "outside"),
        (change(dtype=TYPES["DT_UINT8"], tensor_content=b"", int_val=[1, 2, 3, 4, 5, -1]), "outside"),
        (change(dtype=TYPES["DT_HALF"], tensor_content=b"", half_val=[1, 2, 3, 4, 5, 70_000]), "outside"),
        (change(dtype=TYPES["DT_STRING"], tensor_content=b"\1\1\1\1\1\1a"), "6 strings"),
        (change(dtype=TYPES["DT_STRING"], tensor_content=b"\xff" * 40), "6 strings"),
        (change(dtype=TYPES["DT_STRING"], tensor_content=b"\1"), "6 strings"),
        (reshape(-2, 3), "impossible shape"),
        (reshape(1 << 40, 1 << 40), "impossible shape"),
        (reshape(*[1] * 40), "impossible shape"),
        (reshape(3, 3), "24 bytes"),
        (unknown_rank, "no shape"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_a_bad_answer(lie: Lie, words: str) -> None:
    message = sent(np.arange(6, dtype=np.float32).reshape(2, 3))
    lie(message)
    with pytest.raises(BadAnswer, match="output 'y'") as caught:
        read_tensor(message, "y")
    assert words in str(caught.value)


def answered(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    response = tfserving.PredictResponse()
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(sent(array))
    return serialized(response)


SMALL = arrays.arrays(
    st.sampled_from([DTYPES[name] for name in FIELDS]), arrays.array_shapes(max_dims=2, min_side=0, max_side=3)
)
ANSWERS = st.builds(lambda y, z: answered({"y": y, "z": z}), SMALL, SMALL | STRINGS)

#: Larger ones are views of a single value.
MOST_ELEMENTS = 10_000


@st.composite
def lies(draw: st.DrawFn) -> bytes:
    """Return an answer of tensors whose parts need not fit together."""
    response = tfserving.PredictResponse()
    for name in draw(st.lists(st.sampled_from("yz"), min_size=1, max_size=2)):
        tensor = response.outputs[name]
        tensor.dtype = draw(
            st.sampled_from([*(TYPES[f"DT_{kind}"] for kind in ("FLOAT", "INT8", "BOOL", "STRING", "COMPLEX64")), 999])
        )
        reshape(*draw(st.lists(st.sampled_from([1, 2, 0, -1, 200, 1 << 62]), max_size=2)))(tensor)
        tensor.tensor_content = draw(st.sampled_from([b"", b"\0", b"\1" * 4, b"\2"]))
        values = draw(st.lists(st.sampled_from([0, 1, 300]), max_size=2))
        getattr(tensor, draw(st.sampled_from(["float_val", "int_val", "bool_val"]))).extend(values)
    return serialized(response)


@settings(max_examples=400)
@given(lies() | damaged(ANSWERS) | st.binary(max_size=200))
def test_any_bytes_are_outputs_that_can_be_sent_on_or_a_bad_answer(received: bytes) -> None:
    answer = read_or_error(read_answer, received, BadAnswer)
    if isinstance(answer, Exception):
        assert str(answer).startswith(("the server's answer ", "the server's output "))
        return
    outputs = answer.outputs
    huge = {name for name, array in outputs.items() if array.size > MOST_ELEMENTS}
    assert not any(any(outputs[name].strides) for name in huge), "they take memory before their rows are checked"
    small = {name: array for name, array in outputs.items() if name not in huge}
    again = read_answer(answered(small)).outputs
    assert again.keys() == small.keys()
    assert all(same(again[name], small[name]) for name in small)


#: A tensor of a signature: "inputs" or "outputs", name, datatype, sizes or None for a shape that is not known.
Tensor: TypeAlias = tuple[str, str, int, list[int] | None]


def metadata(*tensors: Tensor, signature: str = "serving_default") -> bytes:
    signatures = tfserving.SignatureDefMap()
    for side, name, dtype, sizes in tensors:
        info = getattr(signatures.signature_def[signature], side)[name]
        info.dtype = dtype
        info.name = f"{name}:0"
        if sizes is None:
            info.tensor_shape.unknown_rank = True
        for size in sizes or ():
            info.tensor_shape.dim.add(size=size)
    response = tfserving.GetModelMetadataResponse()
    response.metadata["signature_def"].value = serialized(signatures)
    return serialized(response)


FLOAT = TYPES["DT_FLOAT"]


#: Numbers of `tensorflow.DataType`, by the names of datatypes.
NUMBERS_OF = {datatype: TYPES[name] for name, datatype in DATATYPES.items()}

METADATA = [
    metadata(("inputs", "x", FLOAT, [-1, 4]), ("outputs", "y", TYPES["DT_STRING"], [-1])),
    metadata(("inputs", "x", FLOAT, [8, 4]), ("outputs", "y", TYPES["DT_INT64"], [8])),
    metadata(("inputs", "x", FLOAT, None)),
]


#: Of models that may be none for batches.
STRANGE_MODELS = st.builds(
    lambda tensors, signature: metadata(*tensors, signature=signature),
    st.lists(
        st.tuples(
            st.sampled_from(["inputs", "outputs"]),
            st.sampled_from(["x", "y"]),
            st.sampled_from([FLOAT, TYPES["DT_STRING"], TYPES["DT_COMPLEX64"], 999]),
            st.none() | st.lists(st.sampled_from([-1, 8, 0, -7]), max_size=2),
        ),
        max_size=2,
    ),
    st.sampled_from(["serving_default", "other"]),
)


@given(STRANGE_MODELS | damaged(st.sampled_from(METADATA)) | st.binary(max_size=200))
def test_any_bytes_are_the_signature_of_a_model_or_an_error_by_name(received: bytes) -> None:
    where = "digits at grpc://host:1"
    found = read_or_error(
        lambda data: TARGET.read_metadata(data, where), received, BadAnswer, OtherSignature, PackageError
    )
    if isinstance(found, OtherSignature):
        assert str(found).startswith(f"{where}: the model has no signature 'serving_default'; it has: ")
    elif isinstance(found, Exception):
        assert "server's" in str(found) or str(found).startswith(("tensor ", "the server "))
    else:
        tensors: list[Tensor] = [
            (side, spec.name, NUMBERS_OF[spec.datatype], [found.max_rows or -1, *spec.shape])
            for side, specs in (("inputs", found.inputs), ("outputs", found.outputs))
            for spec in specs
        ]
        assert found.max_rows >= 0
        again = TARGET.read_metadata(metadata(*tensors), where)
        assert (again.inputs, again.outputs, again.max_rows) == (found.inputs, found.outputs, found.max_rows)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([("inputs", "x", FLOAT, [-1, 4]), ("inputs", "k", FLOAT, [])], "'k', a scalar"),
        ([("inputs", "x", FLOAT, [-1, 4]), ("outputs", "y", FLOAT, [7, 4])], "x any, y 7"),
        ([("inputs", "x", FLOAT, None)], "shape of input 'x'"),
        ([("inputs", "x", TYPES["DT_COMPLEX128"], [-1])], "DT_COMPLEX128"),
    ],
)
def test_signatures_that_no_batch_fits_are_refused(tensors: list[Tensor], words: str) -> None:
    with pytest.raises(PackageError) as caught:
        TARGET.read_metadata(metadata(*tensors), "digits at grpc://host:1")
    assert words in str(caught.value)


def test_a_model_of_a_fixed_batch_says_its_rows() -> None:
    found = TARGET.read_metadata(metadata(("inputs", "x", FLOAT, [8, 4]), ("outputs", "y", FLOAT, [8])), "digits")
    assert (found.max_rows, found.row_sizes) == (8, (8,))


def test_a_sparse_tensor_is_refused_by_name() -> None:
    signatures = tfserving.SignatureDefMap()
    signatures.signature_def["serving_default"].inputs["x"].dtype = FLOAT
    response = tfserving.GetModelMetadataResponse()
    response.metadata["signature_def"].value = serialized(signatures)
    with pytest.raises(PackageError, match="'x' is sparse"):
        TARGET.read_metadata(serialized(response), "digits")


def test_a_missing_signature_names_those_there_are() -> None:
    with pytest.raises(OtherSignature, match="no signature 'serving_default'; it has: classify"):
        TARGET.read_metadata(metadata(("inputs", "x", FLOAT, [-1]), signature="classify"), "digits")


def status(*states: str, message: str = "") -> bytes:
    response = tfserving.GetModelStatusResponse()
    for version, state in enumerate(states, 1):
        entry = response.model_version_status.add(version=version, state=STATES[state])
        entry.status.error_message = message
    return serialized(response)


@given(damaged(st.lists(st.sampled_from(sorted(STATES)), max_size=3).map(lambda states: status(*states))) | st.binary())
def test_any_bytes_are_a_ready_model_or_an_error_by_name(received: bytes) -> None:
    error = read_or_error(lambda data: check_status(data, "digits"), received, BadAnswer, ModelNotReady, Misconfigured)
    if isinstance(error, BadAnswer):
        assert str(error) == "the server's answer is no GetModelStatusResponse"
    elif error:
        assert is_line_of("digits", str(error))
    else:
        versions = tfserving.GetModelStatusResponse.FromString(received).model_version_status
        assert STATES["AVAILABLE"] in [version.state for version in versions]


def test_one_available_version_is_enough() -> None:
    check_status(status("END", "AVAILABLE", "LOADING"), "digits")


@pytest.mark.parametrize("states", [["LOADING"], ["END", "START"]])
def test_a_model_that_loads_is_waited_for(states: list[str]) -> None:
    with pytest.raises(ServerAway, match="digits: the server is loading the model"):
        check_status(status(*states), "digits")


def test_a_model_that_failed_to_load_needs_a_person_who_learns_why() -> None:
    with pytest.raises(Misconfigured, match="no version of the model is loaded: no such file"):
        check_status(status("END", message="no such file"), "digits")


@pytest.mark.parametrize("version", ["latest", "-1", "1.5", str(1 << 63), "²"])
def test_a_version_that_is_no_number_is_refused(version: str) -> None:
    with pytest.raises(PackageError, match="versions that are numbers"):
        Target("digits", "serving_default", version=version).spec()


def test_a_label_or_a_version_is_asked_for() -> None:
    assert Target("digits", "s", label="stable").spec().version_label == "stable"
    assert Target("digits", "s", version="0").spec().HasField("version")
    assert not Target("digits", "s").spec().HasField("version")
