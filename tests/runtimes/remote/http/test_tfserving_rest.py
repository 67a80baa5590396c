"""TensorFlow Serving over REST: both forms, base64, bare NaN, versions and labels, and what goes wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import DTypeLike
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import Answerer, Asked, ScriptedServer, reply

from headrace.contracts.errors import PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.base import (
    Access,
    BadAnswer,
    BatchTooLarge,
    Misconfigured,
    ModelNotReady,
    OtherSignature,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
)
from headrace.runtimes.remote.tfserving.rest import TfServingRest
from headrace.runtimes.remote.transport.server_text import NotFound

LONG_S = 30.0

#: An object of JSON.
Document: TypeAlias = dict[str, Any]
#: The body of a request → that of the answer, or a whole answer.
Predict: TypeAlias = Callable[[Document], Document | bytes]

PATH = re.compile(r"/v1/models/m(?P<chosen>/(?:versions|labels)/[^/:]+)?(?P<verb>/metadata|:predict)?$")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def info(dtype: str, *sizes: int | None) -> Document:
    shape = {"unknown_rank": True} if sizes == (None,) else {"dim": [{"size": str(size), "name": ""} for size in sizes]}
    return {"dtype": dtype, "tensor_shape": {"unknown_rank": False, **shape}, "name": "tensor:0"}


def metadata(inputs: Document, outputs: Document, name: str = "serving_default") -> Document:
    signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
    init = {"inputs": {}, "outputs": {}, "method_name": ""}
    return {
        "model_spec": {"name": "m", "signature_name": "", "version": "3"},
        "metadata": {"signature_def": {"signature_def": {name: signature, "__saved_model_init_op": init}}},
    }


TWO = {"scores": info("DT_FLOAT", -1, 4), "label": info("DT_INT64", -1)}
MODEL = metadata({"x": info("DT_FLOAT", -1, 4)}, {"y": info("DT_FLOAT", -1, 4)})
TWO_OUTPUTS = metadata({"x": info("DT_FLOAT", -1, 4)}, TWO)


def status(*states: str, message: str = "") -> bytes:
    versions = [
        {"version": str(at), "state": state, "status": {"error_code": "OK", "error_message": message}}
        for at, state in enumerate(states)
    ]
    return reply(200, json.dumps({"model_version_status": versions}).encode())


def echo(body: Document) -> Document:
    return {"outputs": body["inputs"]["x"]}


class FakeServing:
    """Answers by path; "predict" is a function of the body. Computes nothing."""

    def __init__(self, predict: Predict = echo, model: Document = MODEL, state: bytes = b"") -> None:
        self.predict = predict
        self.model = model
        self.state = state or status("END", "AVAILABLE")

    def __call__(self, asked: Asked) -> bytes:
        found = PATH.match(asked.path)
        if not found:
            return reply(404, b'{"error":"Malformed request"}')
        if found["verb"] == "/metadata":
            return reply(200, json.dumps(self.model).encode())
        if found["verb"] == ":predict":
            answer = self.predict(json.loads(asked.body))
            return answer if isinstance(answer, bytes) else reply(200, json.dumps(answer).encode())
        return self.state


class Connect:
    """Starts a server and connects to it."""

    def __init__(self, serve: Serve, closing: Closing) -> None:
        self._serve = serve
        self._closing = closing

    def __call__(
        self, answer: Answerer, *, signature_name: str = "serving_default", version: str = "", label: str = ""
    ) -> tuple[ScriptedServer, TfServingRest]:
        server = self._serve(answer)
        connection = TfServingRest(
            server.address, "m", access=Access(), signature_name=signature_name, version=version, label=label
        )
        return server, self._closing(connection)


@pytest.fixture
def connect(serve: Serve, closing: Closing) -> Connect:
    return Connect(serve, closing)


def test_a_batch_goes_in_the_column_form(connect: Connect) -> None:
    server, connection = connect(FakeServing())
    answer = connection.infer({"x": X}, ["y"], LONG_S)
    assert np.array_equal(answer.outputs["y"], X)
    assert answer.outputs["y"].dtype == np.float32
    # Answers don't name the version.
    assert answer.version == ""
    assert json.loads(server.asked[-1].body) == {"signature_name": "serving_default", "inputs": {"x": X.tolist()}}


def test_several_outputs_have_names(connect: Connect) -> None:
    def predict(body: Document) -> Document:
        return {"outputs": {"label": [2**60 + 1, 2], "scores": body["inputs"]["x"]}}

    found = connect(FakeServing(predict, TWO_OUTPUTS))[1].infer({"x": X}, ["scores", "label"], LONG_S).outputs
    assert list(found) == ["scores", "label"]
    assert found["label"].tolist() == [2**60 + 1, 2]
    assert found["label"].dtype == np.int64


def test_wanted_outputs_are_picked(connect: Connect) -> None:
    fake = FakeServing(lambda body: {"outputs": {"label": [1, 2], "scores": body["inputs"]["x"]}}, TWO_OUTPUTS)
    assert list(connect(fake)[1].infer({"x": X}, ["label"], LONG_S).outputs) == ["label"]


def test_a_server_of_the_row_form_alone_is_learned(connect: Connect) -> None:
    def predict(body: Document) -> Document | bytes:
        if "instances" not in body:
            return reply(400, b'{"error":"Expected \\"instances\\" to be a list"}')
        return {"predictions": body["instances"]}

    server, connection = connect(FakeServing(predict))
    for _ in range(2):
        assert np.array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
    forms = ["instances" in json.loads(asked.body) for asked in server.asked if asked.method == "POST"]
    assert forms == [False, True, True]


def test_rows_of_several_inputs_and_outputs_have_names(connect: Connect) -> None:
    def predict(body: Document) -> Document | bytes:
        if "instances" not in body:
            return reply(400, b'{"error":"\\"instances\\" is missing"}')
        return {"predictions": [{"label": row["k"], "scores": row["x"]} for row in body["instances"]]}

    model = metadata({"x": info("DT_FLOAT", -1, 4), "k": info("DT_INT64", -1)}, TWO)
    found = connect(FakeServing(predict, model))[1].infer({"x": X, "k": np.array([5, 6])}, [], LONG_S).outputs
    assert found["label"].tolist() == [5, 6]
    assert np.array_equal(found["scores"], X)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_nan_and_infinity_are_bare_tokens_both_ways(connect: Connect, dtype: DTypeLike) -> None:
    name = {2: "DT_HALF", 4: "DT_FLOAT"}[np.dtype(dtype).itemsize] if dtype is not ml_dtypes.bfloat16 else "DT_BFLOAT16"
    model = metadata({"x": info(name, -1, 3)}, {"y": info(name, -1, 3)})
    x = np.array([[math.nan, math.inf, -1.5]], dtype)
    server, connection = connect(FakeServing(model=model))
    found = connection.infer({"x": x}, ["y"], LONG_S).outputs["y"]
    assert b"[[NaN,Infinity,-1.5]]" in server.asked[-1].body
    assert found.dtype == x.dtype
    assert np.array_equal(found.astype(np.float32), x.astype(np.float32), equal_nan=True)


def test_strings_travel_as_base64(connect: Connect) -> None:
    model = metadata({"x": info("DT_STRING", -1)}, {"y_bytes": info("DT_STRING", -1), "plain": info("DT_STRING", -1)})
    x = np.array([b"\xff\x00", b"caf\xc3\xa9"], object)

    def predict(body: Document) -> Document:
        assert body["inputs"]["x"] == [{"b64": "/wA="}, {"b64": "Y2Fmw6k="}]
        return {"outputs": {"y_bytes": body["inputs"]["x"], "plain": ["a", "ä"]}}

    found = connect(FakeServing(predict, model))[1].infer({"x": x}, ["y_bytes", "plain"], LONG_S).outputs
    assert found["y_bytes"].tolist() == x.tolist()
    assert found["plain"].tolist() == [b"a", "ä".encode()]


@pytest.mark.parametrize(
    ("options", "path", "version"),
    [
        ({}, "/v1/models/m", ""),
        ({"version": "3"}, "/v1/models/m/versions/3", "3"),
        ({"label": "stable"}, "/v1/models/m/labels/stable", ""),
    ],
)
def test_versions_and_labels_stand_in_the_path(
    connect: Connect, options: dict[str, str], path: str, version: str
) -> None:
    server, connection = connect(FakeServing(), **options)
    assert connection.infer({"x": X}, ["y"], LONG_S).version == version
    connection.check_ready(LONG_S)
    assert [asked.path for asked in server.asked] == [f"{path}/metadata", f"{path}:predict", path]


def test_a_signature_of_another_name_is_used(connect: Connect) -> None:
    model = metadata({"x": info("DT_FLOAT", -1, 4)}, {"y": info("DT_FLOAT", -1, 4)}, "classify")
    server, connection = connect(FakeServing(model=model), signature_name="classify")
    connection.infer({"x": X}, ["y"], LONG_S)
    assert json.loads(server.asked[-1].body)["signature_name"] == "classify"


def test_the_signature_is_read(connect: Connect) -> None:
    model = metadata({"b": info("DT_STRING", -1), "a": info("DT_BFLOAT16", -1, 3, -1)}, {"y": info("DT_INT64", -1)})
    found = connect(FakeServing(model=model))[1].signature(LONG_S)
    assert found.inputs == (
        TensorSpec(name="a", datatype="BF16", shape=(3, -1)),
        TensorSpec(name="b", datatype="BYTES"),
    )
    assert found.outputs == (TensorSpec(name="y", datatype="INT64"),)
    assert (found.version, found.platform) == ("3", "tensorflow")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (metadata({"x": info("DT_FLOAT")}, {}), "no rows in its input 'x'"),
        (metadata({"x": info("DT_FLOAT", None)}, {}), "doesn't know the shape of input 'x'"),
        (metadata({"x": info("DT_FLOAT", -1), "w": info("DT_FLOAT", 5)}, {}), "same number of rows"),
        (metadata({"x": info("DT_VARIANT", -1)}, {}), "'DT_VARIANT'"),
        (metadata({}, {}, "classify"), "no signature 'serving_default'; it has classify"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_name(connect: Connect, model: Document, words: str) -> None:
    _, connection = connect(FakeServing(model=model))
    with pytest.raises(PackageError, match=f"m at http://.*{words}"):
        connection.signature(LONG_S)
    with pytest.raises(OtherSignature, match=words):
        connection.infer({"x": X}, ["y"], LONG_S)


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"metadata":{"signature_def":[]}}', b"[]"])
def test_a_description_that_can_not_be_read_is_a_bad_answer(connect: Connect, body: bytes) -> None:
    fake = FakeServing()
    _, connection = connect(lambda asked: reply(200, body) if asked.path.endswith("/metadata") else fake(asked))
    with pytest.raises(BadAnswer, match="m at http://"):
        connection.signature(LONG_S)


def test_outputs_of_a_version_that_was_loaded_since_are_understood(connect: Connect) -> None:
    before = metadata({"x": info("DT_FLOAT", -1, 4)}, {"y": info("DT_INT64", -1)})
    fake = FakeServing(lambda body: {"outputs": [1.5, 2.5]}, before)
    _, connection = connect(fake)
    with pytest.raises(BadAnswer, match="'y' is no INT64 tensor"):
        connection.infer({"x": X}, ["y"], LONG_S)
    fake.model = metadata({"x": info("DT_FLOAT", -1, 4)}, {"y": info("DT_FLOAT", -1)})
    assert connection.infer({"x": X}, ["y"], LONG_S).outputs["y"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(400, b'{"error":"Incompatible shapes"}'), Refused),
        (reply(400, b'{"error":"Task size 64 is larger than maximum input batch size 32"}'), BatchTooLarge),
        (reply(400, b'{"error":"input tensor alias not found in signature: q"}'), OtherSignature),
        (reply(503, b'{"error":"This task would start a fresh batch, but all batch threads are busy"}'), ServerBusy),
        (reply(503, b'{"error":"the server is going down"}'), ServerAway),
        (reply(200, b'{"error":"odd"}'), ServerFailed),
        (reply(200, b'{"something":1}'), BadAnswer),
        (reply(200, b'{"outputs":"y"}'), BadAnswer),
        (reply(200, b'{"outputs":[[1.0,2.0],[1.0]]}'), BadAnswer),
        (reply(200, b'{"predictions":{"y":1}}'), BadAnswer),
        (reply(200, b"<html></html>"), BadAnswer),
    ],
)
def test_errors_of_a_batch(connect: Connect, answer: bytes, error: type[Exception]) -> None:
    server, connection = connect(FakeServing(lambda body: answer))
    with pytest.raises(error) as caught:
        connection.infer({"x": X}, ["y"], LONG_S)
    assert type(caught.value) is error
    assert str(server.address) in str(caught.value)


def test_an_output_that_is_not_there_is_named(connect: Connect) -> None:
    with pytest.raises(OtherSignature, match="no output 'z'; it has 'y'"):
        connect(FakeServing())[1].infer({"x": X}, ["z"], LONG_S)


NOT_FOUND = reply(404, b'{"error":"Servable not found for request: Latest(m)"}')


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (status("LOADING"), ModelNotReady),
        (status("START"), ModelNotReady),
        (status("END", message="out of disk"), Misconfigured),
        (status(), Misconfigured),
        (NOT_FOUND, NotFound),
        (reply(200, b'{"model_version_status":7}'), BadAnswer),
    ],
)
def test_a_model_that_does_not_answer_says_why(connect: Connect, state: bytes, error: type[Exception]) -> None:
    server, connection = connect(FakeServing(lambda body: NOT_FOUND, state=state))
    for call in (lambda: connection.check_ready(LONG_S), lambda: connection.infer({"x": X}, ["y"], LONG_S)):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
        assert str(server.address) in str(caught.value)


def test_the_cause_of_a_model_that_failed_to_load_is_told(connect: Connect) -> None:
    _, connection = connect(FakeServing(state=status("END", message="out of disk")))
    with pytest.raises(Misconfigured, match="no version of the model is loaded: out of disk; load one there"):
        connection.check_ready(LONG_S)


def test_values_that_a_model_does_not_find_are_refused(connect: Connect) -> None:
    missing = reply(404, b'{"error":"Key 7 is not in the table"}')
    with pytest.raises(Refused, match="Key 7"):
        connect(FakeServing(lambda body: missing))[1].infer({"x": X}, ["y"], LONG_S)


def test_the_time_of_a_call_covers_its_questions(connect: Connect) -> None:
    fake = FakeServing()
    server, connection = connect(
        lambda asked: server.drip(fake(asked)) if asked.path.endswith("/metadata") else fake(asked)
    )
    with pytest.raises(ServerAway, match="did not answer within"):
        connection.infer({"x": X}, ["y"], 0.3)
