"""A connection to servers of the Open Inference Protocol, whose part a scripted server plays."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.grpc.conftest import Serve
from tests.runtimes.remote.grpc.scripted import Answerer

from headrace.contracts import TensorSpec
from headrace.runtimes.remote.base import Access, BadAnswer, Connection, Misconfigured, Refused, ServerAway
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.wire import serialized
from headrace.runtimes.remote.oip.grpc import TORCHSERVE, OipGrpc

LONG_S = 30.0
X = np.arange(8, dtype=np.float32).reshape(2, 4)


class Model:
    """y = x. versioned: whether the server knows versions. absent: whether it has lost the model.

    refusals: of its first calls.
    """

    def __init__(self) -> None:
        self.ready = True
        self.absent = False
        self.versioned = True
        self.most_rows = 0
        self.refusals = 0
        self.asked: list[oip.ModelInferRequest] = []
        self.request_id = ""

    def infer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = oip.ModelInferRequest.FromString(request)
        self._check(asked.model_version, context)
        self.asked.append(asked)
        if self.refusals >= len(self.asked):
            context.abort(grpc.StatusCode.INTERNAL, "Prediction failed")
        response = oip.ModelInferResponse(model_version="3", id=self.request_id or asked.id)
        for tensor in asked.inputs:
            output = response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
            output.contents.MergeFrom(tensor.contents)
        response.raw_output_contents.extend(asked.raw_input_contents)
        return serialized(response)

    def is_ready(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._check(oip.ModelReadyRequest.FromString(request).version, context)
        return serialized(oip.ModelReadyResponse(ready=self.ready))

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._check(oip.ModelMetadataRequest.FromString(request).version, context)
        if self.absent:
            context.abort(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'digits' is not found")
        response = oip.ModelMetadataResponse.FromString(b"")
        response.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
        response.outputs.add(name="y", datatype="FP32", shape=[-1, 4])
        return serialized(response)

    def config(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        response = oip.ModelConfigResponse.FromString(b"")
        response.config.max_batch_size = self.most_rows
        return serialized(response)

    def _check(self, version: str, context: grpc.ServicerContext) -> None:
        if version and not self.versioned:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "versions are not supported")

    def calls(self, package: str = "inference") -> dict[str, Answerer]:
        path = f"/{package}.GRPCInferenceService/"
        calls: dict[str, Answerer] = {
            path + "ModelInfer": self.infer,
            path + "ModelReady": self.is_ready,
            path + "ModelMetadata": self.metadata,
        }
        return calls | ({path + "ModelConfig": self.config} if self.most_rows else {})


@pytest.fixture
def model() -> Model:
    return Model()


class Connect:
    """Connects to a new server of the model. package: of the protocol's messages."""

    def __init__(self, model: Model, serve: Serve, closing: Closing) -> None:
        self._model = model
        self._serve = serve
        self._closing = closing

    def __call__(self, package: str = "inference", version: str = "") -> Connection:
        address = self._serve(self._model.calls(package)).address
        return self._closing(OipGrpc(address, "digits", access=Access(), service=package, version=version))


@pytest.fixture
def connect(model: Model, serve: Serve, closing: Closing) -> Connect:
    return Connect(model, serve, closing)


def test_a_batch_goes_out_raw_and_comes_back_with_its_version(model: Model, connect: Connect) -> None:
    answer = connect(version="3").infer({"x": X}, ["y"], LONG_S)
    np.testing.assert_array_equal(answer.outputs["y"], X)
    assert answer.version == "3"
    (asked,) = model.asked
    assert (asked.model_name, asked.model_version) == ("digits", "3")
    assert [output.name for output in asked.outputs] == ["y"]
    assert list(asked.raw_input_contents) == [X.tobytes()]


def test_every_call_has_an_id_of_its_own(model: Model, connect: Connect) -> None:
    connection = connect()
    for _ in range(3):
        connection.infer({"x": X}, ["y"], LONG_S)
    assert len({asked.id for asked in model.asked} - {""}) == 3


def test_the_answer_to_another_call_is_bad(model: Model, connect: Connect) -> None:
    model.request_id = "another"
    with pytest.raises(BadAnswer, match=r"digits at grpc://.*: the server answers request 'another'"):
        connect().infer({"x": X}, ["y"], LONG_S)


def test_torchserve_gets_values_under_its_own_name(model: Model, connect: Connect) -> None:
    answer = connect(TORCHSERVE).infer({"x": X}, ["y"], LONG_S)
    np.testing.assert_array_equal(answer.outputs["y"], X)
    (asked,) = model.asked
    assert list(asked.raw_input_contents) == []
    assert list(asked.inputs[0].contents.fp32_contents) == X.reshape(-1).tolist()


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_call_that_torchserve_refuses_with_its_neighbours_is_made_once_more(
    model: Model, connect: Connect, refusals: int
) -> None:
    model.refusals = refusals
    connection = connect(TORCHSERVE)
    if refusals == 1:
        np.testing.assert_array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
    else:
        with pytest.raises(Refused, match="Prediction failed"):
            connection.infer({"x": X}, ["y"], LONG_S)
    assert len(model.asked) == 2


def test_other_servers_refuse_once(model: Model, connect: Connect) -> None:
    model.refusals = 1
    with pytest.raises(Refused, match="Prediction failed"):
        connect().infer({"x": X}, ["y"], LONG_S)
    assert len(model.asked) == 1


def test_the_signature_is_asked_for(connect: Connect) -> None:
    found = connect().signature(LONG_S)
    assert found.inputs == (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
    assert found.outputs == (TensorSpec(name="y", datatype="FP32", shape=(4,)),)
    assert found.max_rows == 0


def test_triton_says_how_many_rows_a_batch_may_have(model: Model, connect: Connect) -> None:
    model.most_rows = 32
    assert connect().signature(LONG_S).max_rows == 32


def test_a_server_without_versions_works_without_one(model: Model, connect: Connect) -> None:
    model.versioned = False
    connection = connect(version="3")
    connection.check_ready(LONG_S)
    assert connection.signature(LONG_S).inputs
    np.testing.assert_array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)


def test_a_model_that_is_not_ready_is_waited_for(model: Model, connect: Connect) -> None:
    model.ready = False
    connection = connect()
    with pytest.raises(ServerAway, match=r"digits at grpc://.*: the model is not ready"):
        connection.check_ready(LONG_S)
    model.ready = True
    connection.check_ready(LONG_S)


def test_a_model_that_is_gone_needs_a_person(model: Model, connect: Connect) -> None:
    model.ready, model.absent = False, True
    with pytest.raises(Misconfigured, match="load the model there"):
        connect().check_ready(LONG_S)
