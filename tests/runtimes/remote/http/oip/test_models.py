"""Models as their servers describe them: readiness, signatures and versions."""

from __future__ import annotations

import json

import pytest
from tests.runtimes.remote.http.oip.conftest import Connect
from tests.runtimes.remote.http.oip.fake_server import (
    KSERVE,
    LONG_S,
    MLSERVER,
    TRITON,
    Document,
    FakeServer,
    X,
    Y,
    answered,
    described,
    parts,
)
from tests.runtimes.remote.http.scripted import Asked, Reaction, reply

from headrace.contracts.errors import PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.base import BadAnswer, Misconfigured, ServerAway
from headrace.runtimes.remote.transport.server_text import NotFound


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (reply(200), True),
        (reply(200, b"  "), True),
        (reply(200, b'{"name":"m","ready":true}'), True),
        (reply(200, b'{"live":true}'), True),
        (reply(200, b'{"name":"m","ready":false}'), False),
        (reply(503, b'{"error":"Model with name m is not ready."}'), False),
        (reply(400, b'{"error":"Model version not ready"}'), False),
        (reply(404, b'{"code":404,"type":"ResourceNotFoundException","message":"no such path"}'), True),
    ],
)
def test_readiness_in_every_dialect(connect: Connect, answer: bytes, ready: bool) -> None:
    _, connection = connect(FakeServer(TRITON, paths={"/v2/models/m/ready": answer}))
    if ready:
        connection.check_ready(LONG_S)
    else:
        with pytest.raises(ServerAway):
            connection.check_ready(LONG_S)


def test_the_signature_is_read(connect: Connect) -> None:
    found = connect(FakeServer(TRITON))[1].signature(LONG_S)
    assert found.inputs == (TensorSpec(name="x", datatype="FP32", shape=(4,)),)
    assert found.outputs == (TensorSpec(name="y", datatype="FP32", shape=(4,)),)
    assert (found.version, found.platform, found.max_rows) == ("3", "onnx", 32)


def test_only_triton_is_asked_for_its_configuration(connect: Connect) -> None:
    server, connection = connect(FakeServer(MLSERVER))
    assert connection.signature(LONG_S).max_rows == 0
    assert "/v2/models/m/config" not in [asked.path for asked in server.asked]


@pytest.mark.parametrize("versions", [None, []])
def test_a_model_may_have_no_versions_and_no_tensors(connect: Connect, versions: list[str] | None) -> None:
    bare = json.dumps({"name": "m", "versions": versions, "platform": "", "inputs": [], "outputs": None}).encode()
    found = connect(FakeServer(MLSERVER, paths={"/v2/models/m": reply(200, bare)}))[1].signature(LONG_S)
    assert (found.inputs, found.outputs, found.version, found.platform) == ((), (), "", "mlserver")


def test_a_server_without_descriptions_names_no_tensors(connect: Connect) -> None:
    nothing = reply(404, b'{"code":404,"type":"ResourceNotFoundException","message":"no such path"}')
    found = connect(FakeServer(None, paths={"/v2/models/m": nothing}))[1].signature(LONG_S)
    assert (found.inputs, found.outputs) == ((), ())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (described({"x": ("FP32", ())}, {}), "m at http://.*no rows in its input 'x'"),
        (described({"x": ("FP32", (-1,)), "w": ("FP32", (3,))}, {}), "same number of rows"),
        (described({"x": ("STRING", (-1,))}, {}), "'STRING'"),
    ],
)
def test_a_model_without_rows_is_refused(connect: Connect, model: Document, words: str) -> None:
    with pytest.raises(PackageError, match=words):
        connect(FakeServer(MLSERVER, paths={"/v2/models/m": reply(200, json.dumps(model).encode())}))[1].signature(
            LONG_S
        )


@pytest.mark.parametrize("body", [b"{", b'{"inputs":[{"name":1}]}', b"[]"])
def test_a_description_that_can_not_be_read_is_a_bad_answer(connect: Connect, body: bytes) -> None:
    with pytest.raises(BadAnswer, match="m at http://"):
        connect(FakeServer(MLSERVER, paths={"/v2/models/m": reply(200, body)}))[1].signature(LONG_S)


def test_a_version_stands_in_the_path(connect: Connect) -> None:
    def answer(asked: Asked) -> Reaction:
        path = asked.path.replace("/versions/3", "")
        return FakeServer(TRITON)(Asked(asked.method, path, asked.headers, asked.body))

    server, connection = connect(answer, version="3")
    assert connection.infer({"x": X}, ["y"], LONG_S).version == "3"
    assert connection.signature(LONG_S).version == "3"
    connection.check_ready(LONG_S)
    assert [asked.path for asked in server.asked] == [
        "/v2",
        "/v2/models/m/versions/3/infer",
        "/v2/models/m/versions/3",
        "/v2/models/m/versions/3/config",
        "/v2/models/m/versions/3/ready",
    ]


@pytest.mark.parametrize(
    "refusal",
    [
        reply(501, b'{"error":"Model versioning not supported yet."}'),
        reply(404, b'{"detail":"Not Found"}'),
        reply(404, b""),
    ],
)
def test_a_server_without_versions_is_called_without(connect: Connect, refusal: bytes) -> None:
    def without_version(asked: Asked) -> bytes:
        head = {"id": parts(asked)[0]["id"], "model_version": None, "outputs": [Y]}
        return answered(head)

    fake = FakeServer(KSERVE, without_version)
    server, connection = connect(lambda asked: refusal if "/versions/" in asked.path else fake(asked), version="7")
    for _ in range(2):
        assert connection.infer({"x": X}, ["y"], LONG_S).version == ""
    # Once it is known, nobody asks again.
    assert ["/versions/" in asked.path for asked in server.asked if asked.method == "POST"] == [True, False, False]
    assert connection.signature(LONG_S).version == "3"


def test_another_version_than_the_one_that_was_asked_for_is_refused(connect: Connect) -> None:
    fake = FakeServer(MLSERVER)
    _, connection = connect(lambda asked: reply(404) if "/versions/" in asked.path else fake(asked), version="7")
    with pytest.raises(Misconfigured, match="version 3 answers, not 7"):
        connection.infer({"x": X}, ["y"], LONG_S)


def test_a_version_that_is_not_there_is_not_replaced(connect: Connect) -> None:
    gone = reply(404, b'{"error":"Request for unknown model: \'m\' version 7 is not found"}')
    fake = FakeServer(TRITON)
    _, connection = connect(lambda asked: gone if "/versions/" in asked.path else fake(asked), version="7")
    with pytest.raises(NotFound, match="version 7 is not found"):
        connection.infer({"x": X}, ["y"], LONG_S)
