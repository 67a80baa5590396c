"""A connection to TensorFlow Serving, whose part a scripted server plays."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.grpc.conftest import Serve
from tests.runtimes.remote.grpc.scripted import Answerer

from headrace.contracts import PackageError, TensorSpec
from headrace.runtimes.remote.base import (
    Access,
    Address,
    BadAnswer,
    BatchTooLarge,
    Connection,
    Misconfigured,
    OtherSignature,
    Refused,
    ServerAway,
)
from headrace.runtimes.remote.messages import tfserving
from headrace.runtimes.remote.messages.wire import serialized
from headrace.runtimes.remote.tfserving.grpc import TfServingGrpc
from headrace.runtimes.remote.tfserving.tensors import read_tensor, write_tensor

LONG_S = 30.0
X = np.arange(8, dtype=np.float32).reshape(2, 4)
FLOAT = tfserving.DATA_TYPES["DT_FLOAT"]


class Model:
    """y = 2x in version 7. state: of that version. answer: how a batch is answered."""

    def __init__(self) -> None:
        self.state = "AVAILABLE"
        self.asked: list[tfserving.PredictRequest] = []
        self.answer: Answerer = self.doubled

    def doubled(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = tfserving.PredictRequest.FromString(request)
        self.asked.append(asked)
        response = tfserving.PredictResponse()
        response.model_spec.version.value = 7
        y = read_tensor(asked.inputs["x"], "x") * 2
        response.outputs["y"].ParseFromString(b"".join(write_tensor(y)))
        return serialized(response)

    def status(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        response = tfserving.GetModelStatusResponse()
        response.model_version_status.add(version=7, state=tfserving.STATES[self.state])
        return serialized(response)

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        signatures = tfserving.SignatureDefMap()
        for side, name in (("inputs", "x"), ("outputs", "y")):
            info = getattr(signatures.signature_def["serving_default"], side)[name]
            info.name, info.dtype = name, FLOAT
            info.tensor_shape.dim.add(size=-1)
            info.tensor_shape.dim.add(size=4)
        response = tfserving.GetModelMetadataResponse()
        response.model_spec.version.value = 7
        response.metadata["signature_def"].value = serialized(signatures)
        return serialized(response)

    def calls(self) -> dict[str, Answerer]:
        return {
            "/tensorflow.serving.PredictionService/Predict": lambda *call: self.answer(*call),
            "/tensorflow.serving.PredictionService/GetModelMetadata": self.metadata,
            "/tensorflow.serving.ModelService/GetModelStatus": self.status,
        }


def aborting(code: grpc.StatusCode, text: str) -> Answerer:
    return lambda request, context: context.abort(code, text)


@pytest.fixture
def model() -> Model:
    return Model()


class Connect:
    """Connects to the server of the model."""

    def __init__(self, address: Address, closing: Closing) -> None:
        self._address = address
        self._closing = closing

    def __call__(self, *, signature_name: str = "serving_default", label: str = "") -> Connection:
        return self._closing(
            TfServingGrpc(self._address, "digits", access=Access(), signature_name=signature_name, label=label)
        )


@pytest.fixture
def connect(model: Model, serve: Serve, closing: Closing) -> Connect:
    return Connect(serve(model.calls()).address, closing)


def test_a_batch_goes_out_and_comes_back_with_its_version(model: Model, connect: Connect) -> None:
    answer = connect(label="stable").infer({"x": X}, ["y"], LONG_S)
    np.testing.assert_array_equal(answer.outputs["y"], X * 2)
    assert answer.version == "7"
    (asked,) = model.asked
    assert asked.model_spec.name == "digits"
    assert asked.model_spec.version_label == "stable"
    assert asked.model_spec.signature_name == "serving_default"
    assert list(asked.output_filter) == ["y"]


def test_the_signature_is_asked_for(connect: Connect) -> None:
    found = connect().signature(LONG_S)
    assert found.inputs == (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
    assert found.outputs == (TensorSpec(name="y", datatype="FP32", shape=(4,)),)
    assert found.version == "7"


def test_a_signature_of_another_name_is_missing(connect: Connect) -> None:
    with pytest.raises(OtherSignature, match=r"digits at grpc://.*: the model has no signature 'other'"):
        connect(signature_name="other").signature(LONG_S)


NOT_FOUND = aborting(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(digits)")


@pytest.mark.parametrize(("state", "error"), [("LOADING", ServerAway), ("START", ServerAway), ("END", Misconfigured)])
def test_a_model_that_loads_is_waited_for_and_an_unloaded_one_is_not(
    model: Model, connect: Connect, state: str, error: type[Exception]
) -> None:
    model.state, model.answer = state, NOT_FOUND
    connection = connect()
    with pytest.raises(error):
        connection.infer({"x": X}, ["y"], LONG_S)
    with pytest.raises(error):
        connection.check_ready(LONG_S)
    model.state, model.answer = "AVAILABLE", model.doubled
    connection.check_ready(LONG_S)
    assert connection.infer({"x": X}, ["y"], LONG_S).version == "7"


def test_a_version_that_is_missing_from_a_loaded_model_refuses_no_values(model: Model, connect: Connect) -> None:
    model.answer = NOT_FOUND
    with pytest.raises(Misconfigured, match="Servable not found"):
        connect().infer({"x": X}, ["y"], LONG_S)


def test_values_that_name_what_is_not_found_are_refused(model: Model, connect: Connect) -> None:
    model.answer = aborting(grpc.StatusCode.NOT_FOUND, "a.txt; No such file or directory")
    with pytest.raises(Refused, match=r"a\.txt"):
        connect().infer({"x": X}, ["y"], LONG_S)


def test_too_many_rows_teach_how_many_fit(model: Model, connect: Connect) -> None:
    text = "Task size 2 is larger than maximum input batch size 1"
    model.answer = aborting(grpc.StatusCode.INVALID_ARGUMENT, text)
    with pytest.raises(BatchTooLarge) as caught:
        connect().infer({"x": X}, ["y"], LONG_S)
    assert caught.value.most_rows == 1


def test_an_answer_that_is_none_names_its_server(model: Model, connect: Connect) -> None:
    model.answer = lambda request, context: b"\xff\xff\xff"
    with pytest.raises(BadAnswer, match=r"digits at grpc://127.0.0.1:\d+: the server's answer is no PredictResponse"):
        connect().infer({"x": X}, ["y"], LONG_S)


def test_a_version_that_is_no_number_is_refused_at_once() -> None:
    with pytest.raises(PackageError, match="numbers"):
        TfServingGrpc(Address("grpc", "host", 1), "digits", access=Access(), version="latest")
