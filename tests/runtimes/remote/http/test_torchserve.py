"""TorchServe's own REST: a call for each row, or one for all where its models have the JSON envelope."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import Answerer, Asked, Reaction, ScriptedServer, reply

from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.base import Access, BadAnswer, Refused, ServerAway, ServerBusy, ServerFailed
from headrace.runtimes.remote.oip.torchserve import ROWS_SIDE_BY_SIDE, TorchServeRest
from headrace.runtimes.remote.transport.server_text import NotFound

LONG_S = 30.0

#: A call for each row, or one for all.
Form: TypeAlias = Literal["row", "instances"]

X = np.arange(8, dtype=np.float32).reshape(2, 4)
X_SPEC = TensorSpec(name="x", datatype="FP32", shape=(4,))
Y_SPEC = TensorSpec(name="y", datatype="FP32", shape=(4,))
FAILED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
NO_WORKER = {
    "code": 503,
    "type": "ServiceUnavailableException",
    "message": 'Model "m" has no worker to serve inference request. Please use scale workers API to add workers.',
}
NO_MODEL = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: m"}


def answered(value: object, status: int = 200) -> bytes:
    return reply(status, json.dumps(value).encode())


class Connect:
    """Starts a server and connects to it."""

    def __init__(self, serve: Serve, closing: Closing) -> None:
        self._serve = serve
        self._closing = closing

    def __call__(
        self,
        answer: Answerer,
        inputs: Sequence[TensorSpec] = (X_SPEC,),
        outputs: Sequence[TensorSpec] = (Y_SPEC,),
        *,
        version: str = "",
        form: Form = "row",
    ) -> tuple[ScriptedServer, TorchServeRest]:
        server = self._serve(answer)
        connection = TorchServeRest(
            server.address, "m", access=Access(), inputs=inputs, outputs=outputs, version=version, form=form
        )
        return server, self._closing(connection)


@pytest.fixture
def connect(serve: Serve, closing: Closing) -> Connect:
    return Connect(serve, closing)


def echo(asked: Asked) -> bytes:
    return reply(200, asked.body)


def test_every_row_is_a_call(connect: Connect) -> None:
    server, connection = connect(echo)
    assert np.array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
    assert sorted(asked.body for asked in server.asked) == [b"[0.0,1.0,2.0,3.0]", b"[4.0,5.0,6.0,7.0]"]
    assert {asked.path for asked in server.asked} == {"/predictions/m"}
    assert {asked.headers["content-type"] for asked in server.asked} == {"application/json"}


def test_rows_are_under_way_side_by_side_and_answered_in_order(connect: Connect) -> None:
    # TorchServe gathers what waits at the same time; here nothing is answered before so many calls are there.
    together = threading.Barrier(ROWS_SIDE_BY_SIDE)
    x = np.arange(2 * ROWS_SIDE_BY_SIDE * 4, dtype=np.float32).reshape(-1, 4)
    _, connection = connect(lambda asked: (together.wait(LONG_S), echo(asked))[1])
    assert np.array_equal(connection.infer({"x": x}, ["y"], LONG_S).outputs["y"], x)


def test_all_rows_go_in_one_call_with_the_envelope(connect: Connect) -> None:
    def answer(asked: Asked) -> bytes:
        return answered({"predictions": json.loads(asked.body)["instances"]})

    server, connection = connect(answer, form="instances")
    assert np.array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
    assert len(server.asked) == 1


def test_a_version_stands_in_the_path(connect: Connect) -> None:
    server, connection = connect(echo, version="2.0")
    assert connection.infer({"x": X[:1]}, ["y"], LONG_S).version == "2.0"
    assert server.asked[0].path == "/predictions/m/2.0"


def test_several_tensors_have_names(connect: Connect) -> None:
    specs = (X_SPEC, TensorSpec(name="k", datatype="INT64"))
    outputs = (Y_SPEC, TensorSpec(name="label", datatype="INT64"))

    def answer(asked: Asked) -> bytes:
        row = json.loads(asked.body)
        return answered({"label": row["k"], "y": row["x"]})

    found = connect(answer, specs, outputs)[1].infer({"x": X, "k": np.array([7, 2**60 + 1])}, ["label"], LONG_S).outputs
    assert {name: array.tolist() for name, array in found.items()} == {"label": [7, 2**60 + 1]}


def test_a_single_input_of_bytes_is_the_body(connect: Connect) -> None:
    image = TensorSpec(name="image", datatype="BYTES")
    label = TensorSpec(name="label", datatype="BYTES")
    server, connection = connect(lambda asked: reply(200, asked.body[:2] + b"cat"), (image,), (label,))
    found = connection.infer({"image": np.array([b"\xff\xd8 1", b"\xff\xd8 2"], object)}, ["label"], LONG_S).outputs
    assert found["label"].tolist() == [b"\xff\xd8cat", b"\xff\xd8cat"]
    assert sorted(asked.body for asked in server.asked) == [b"\xff\xd8 1", b"\xff\xd8 2"]
    assert {asked.headers["content-type"] for asked in server.asked} == {"application/octet-stream"}


def test_text_is_text_in_json(connect: Connect) -> None:
    text = TensorSpec(name="x", datatype="BYTES", shape=(2,))
    server, connection = connect(echo, (text,), (TensorSpec(name="y", datatype="BYTES", shape=(2,)),))
    x = np.array([["ä".encode(), b"\xff"]], object)
    assert connection.infer({"x": x}, ["y"], LONG_S).outputs["y"].tolist() == x.tolist()
    assert json.loads(server.asked[0].body) == ["ä", {"b64": "/w=="}]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answered(FAILED, 503), ServerFailed),
        (answered(NO_WORKER, 503), ServerBusy),
        (answered(NO_MODEL, 404), NotFound),
        (answered({"code": 500, "type": "InternalServerException", "message": "Worker died."}, 500), ServerFailed),
        (reply(200, b"kitten"), BadAnswer),
        (answered({"other": 1}), BadAnswer),
        (answered({"error": "odd"}), ServerFailed),
    ],
)
@pytest.mark.parametrize("form", ["row", "instances"])
def test_errors_of_a_batch(connect: Connect, answer: bytes, error: type[Exception], form: Form) -> None:
    server, connection = connect(lambda asked: answer, form=form)
    with pytest.raises(error) as caught:
        connection.infer({"x": X}, ["y"], LONG_S)
    assert type(caught.value) is error
    assert str(server.address) in str(caught.value)


def test_the_error_of_one_row_is_that_of_the_batch(connect: Connect) -> None:
    def answer(asked: Asked) -> bytes:
        return answered(FAILED, 503) if asked.body.startswith(b"[4") else echo(asked)

    with pytest.raises(Refused, match="Prediction failed"):
        connect(answer)[1].infer({"x": X}, ["y"], LONG_S)


def test_a_row_that_its_neighbours_spoiled_is_sent_again_alone(connect: Connect) -> None:
    """TorchServe fails all calls that it gathered when its handler raises on one of them."""
    seen: list[bytes] = []

    def answer(asked: Asked) -> bytes:
        seen.append(asked.body)
        return answered(FAILED, 503) if seen.count(asked.body) == 1 else echo(asked)

    assert np.array_equal(connect(answer)[1].infer({"x": X}, ["y"], LONG_S).outputs["y"], X)


def test_no_call_outlives_its_batch(connect: Connect) -> None:
    answered_late = threading.Event()

    def answer(asked: Asked) -> bytes:
        if asked.body.startswith(b"[4"):
            return answered(FAILED, 503)
        # The refused call is over by far.
        server.stopping.wait(0.2)
        answered_late.set()
        return echo(asked)

    server, connection = connect(answer)
    with pytest.raises(Refused):
        connection.infer({"x": X}, ["y"], LONG_S)
    assert answered_late.is_set()


def test_rows_of_other_shapes_are_a_bad_answer(connect: Connect) -> None:
    _, connection = connect(lambda asked: answered([1.0] * int(json.loads(asked.body)[0] + 1)))
    with pytest.raises(BadAnswer, match="don't fit together"):
        connection.infer({"x": X}, ["y"], LONG_S)


def test_a_slow_row_does_not_hold_a_batch(connect: Connect) -> None:
    def answer(asked: Asked) -> Reaction:
        return server.drip(echo(asked)) if asked.body.startswith(b"[4") else echo(asked)

    server, connection = connect(answer)
    with pytest.raises(ServerAway, match="did not answer within"):
        connection.infer({"x": X}, ["y"], 0.3)


def test_the_declared_tensors_are_the_signature_of_a_model_that_is_there(connect: Connect) -> None:
    server, connection = connect(lambda asked: answered({"openapi": "3.0.1"}), version="1.0")
    found = connection.signature(LONG_S)
    assert (found.inputs, found.outputs, found.version) == ((X_SPEC,), (Y_SPEC,), "1.0")
    connection.check_ready(LONG_S)
    # A GET on the path of predictions would run one.
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("OPTIONS", "/predictions/m/1.0"),
        ("GET", "/ping"),
        ("OPTIONS", "/predictions/m/1.0"),
    ]


def test_a_model_that_is_not_there_needs_a_person(connect: Connect) -> None:
    _, connection = connect(lambda asked: answered(NO_MODEL, 404) if asked.method == "OPTIONS" else answered({}))
    for call in (connection.signature, connection.check_ready):
        with pytest.raises(NotFound, match="Model not found: m"):
            call(LONG_S)


def test_a_closed_connection_opens_again(connect: Connect) -> None:
    _, connection = connect(echo)
    connection.infer({"x": X}, ["y"], LONG_S)
    connection.close()
    connection.close()
    assert np.array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
