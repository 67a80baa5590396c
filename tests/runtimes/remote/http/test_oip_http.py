"""Servers of the Open Inference Protocol over HTTP, as Triton, KServe, MLServer and TorchServe answer."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import DTypeLike
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import Answerer, Asked, Reaction, ScriptedServer, reply

from headrace.contracts.errors import PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.remote.base import (
    Access,
    Address,
    BadAnswer,
    BatchTooLarge,
    Misconfigured,
    OtherSignature,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
)
from headrace.runtimes.remote.encoding.raw import pack
from headrace.runtimes.remote.oip.http import OipHttp
from headrace.runtimes.remote.oip.http_codec import Question, read_answer, split
from headrace.runtimes.remote.transport.server_text import NoModelServer, NotFound

LONG_S = 30.0

#: An object of JSON.
Document: TypeAlias = dict[str, Any]
#: Tensors of a model: name → (datatype, shape with rows).
Specs: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]

TRITON = {
    "name": "triton",
    "version": "2.51.0",
    "extensions": ["model_configuration", "schedule_policy", "binary_tensor_data"],
}
MLSERVER = {"name": "mlserver", "version": "1.7.1", "extensions": []}
KSERVE = {"name": "kserve", "version": "0.21.0", "extensions": ["model_repository_extension"]}
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def described(inputs: Specs, outputs: Specs) -> Document:
    def tensors(part: Specs) -> list[Document]:
        return [{"name": name, "datatype": kind, "shape": list(shape)} for name, (kind, shape) in part.items()]

    return {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "onnx",
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
    }


MODEL = described({"x": ("FP32", (-1, 4))}, {"y": ("FP32", (-1, 4))})


class FakeServer:
    """Answers by method and path; "infer" is a function of the request. Computes nothing."""

    def __init__(
        self, server: Document | None, infer: Answerer | None = None, paths: Mapping[str, bytes] | None = None
    ) -> None:
        self.server = server
        self.infer = infer or echo
        self.paths = paths or {}

    def __call__(self, asked: Asked) -> Reaction:
        if asked.path in self.paths:
            return self.paths[asked.path]
        if asked.path == "/v2":
            return (
                reply(200, json.dumps(self.server).encode()) if self.server else reply(404, b'{"detail":"Not Found"}')
            )
        if asked.path == "/v2/models/m/infer":
            return self.infer(asked)
        if asked.path == "/v2/models/m":
            return reply(200, json.dumps(MODEL).encode())
        if asked.path == "/v2/models/m/ready":
            return reply(200)
        if asked.path == "/v2/models/m/config":
            return reply(200, b'{"max_batch_size":32}')
        return reply(404, b'{"detail":"Not Found"}')


def parts(asked: Asked) -> tuple[Document, bytes]:
    length = int(asked.headers.get("inference-header-content-length", len(asked.body)))
    return json.loads(asked.body[:length]), asked.body[length:]


def echo(asked: Asked) -> bytes:
    """Answer with the input x as y, in the form in which it came."""
    question, raw = parts(asked)
    (tensor,) = question["inputs"]
    head = {"model_name": "m", "model_version": "3", "id": question["id"], "outputs": [tensor | {"name": "y"}]}
    return answered(head, raw if "inference-header-content-length" in asked.headers else None)


def answered(head: Document, raw: bytes | None = None) -> bytes:
    text = json.dumps(head).encode()
    if raw is None:
        return reply(200, text)
    return reply(200, text + raw, inference_header_content_length=str(len(text)))


class Connect:
    """Starts a server and connects to it."""

    def __init__(self, serve: Serve, closing: Closing) -> None:
        self._serve = serve
        self._closing = closing

    def __call__(
        self, answer: Answerer, *, version: str = "", torchserve: bool = False
    ) -> tuple[ScriptedServer, OipHttp]:
        server = self._serve(answer)
        connection = OipHttp(server.address, "m", access=Access(), version=version, torchserve=torchserve)
        return server, self._closing(connection)


@pytest.fixture
def connect(serve: Serve, closing: Closing) -> Connect:
    return Connect(serve, closing)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        X,
        np.array([[math.nan, math.inf, -0.0]], np.float64),
        np.array([[2**63 - 1, -(2**63)]], np.int64),
        np.array([[True], [False]]),
        np.array([[2**64 - 1]], np.uint64),
        np.array([["ä".encode(), b""]], object),
        np.zeros((0, 3), np.float32),
    ],
    ids=["FP32", "NaN", "INT64", "BOOL", "UINT64", "BYTES", "empty"],
)
def test_tensors_travel_exactly(connect: Connect, binary: bool, x: np.ndarray) -> None:
    server, connection = connect(FakeServer(TRITON if binary else MLSERVER))
    answer = connection.infer({"x": x}, ["y"], LONG_S)
    assert ("inference-header-content-length" in server.asked[-1].headers) is binary
    assert answer.version == "3"
    found = answer.outputs["y"]
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert pack(found) == pack(x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_travels_as_bytes_alone(connect: Connect, dtype: DTypeLike) -> None:
    x = np.array([[1.5, -2.0]], dtype)
    assert connect(FakeServer(TRITON))[1].infer({"x": x}, ["y"], LONG_S).outputs["y"].tobytes() == x.tobytes()
    server, connection = connect(FakeServer(MLSERVER))
    with pytest.raises(Misconfigured, match=r"input 'x' is (FP16|BF16), which has no JSON form"):
        connection.infer({"x": x}, ["y"], LONG_S)
    assert [asked.path for asked in server.asked] == ["/v2"]


def test_bytes_that_are_no_text_travel_as_bytes_alone(connect: Connect) -> None:
    x = np.array([[b"\xff\x00"]], object)
    assert connect(FakeServer(TRITON))[1].infer({"x": x}, ["y"], LONG_S).outputs["y"].tolist() == [[b"\xff\x00"]]
    with pytest.raises(Refused, match="no UTF-8 text"):
        connect(FakeServer(MLSERVER))[1].infer({"x": x}, ["y"], LONG_S)


def test_the_server_is_asked_for_its_extensions_once(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON))
    for _ in range(3):
        connection.infer({"x": X}, ["y"], LONG_S)
    assert [asked.path for asked in server.asked].count("/v2") == 1


def test_after_a_server_was_away_it_is_asked_again(connect: Connect) -> None:
    fake = FakeServer(TRITON)
    server, connection = connect(fake)
    connection.infer({"x": X}, ["y"], LONG_S)
    fake.infer = lambda asked: None
    with pytest.raises(ServerAway):
        connection.infer({"x": X}, ["y"], LONG_S)
    fake.server, fake.infer = MLSERVER, echo
    connection.infer({"x": X}, ["y"], LONG_S)
    assert "inference-header-content-length" not in server.asked[-1].headers


@pytest.mark.parametrize(("version", "binary"), [("0.21.0", True), ("0.14.0rc1", True), ("0.13.1", False), ("", False)])
def test_kserve_takes_bytes_though_it_does_not_say_so(connect: Connect, version: str, binary: bool) -> None:
    server, connection = connect(FakeServer(KSERVE | {"version": version}))
    connection.infer({"x": X}, ["y"], LONG_S)
    assert ("inference-header-content-length" in server.asked[-1].headers) is binary


@pytest.mark.parametrize(
    "description",
    [reply(404, b"nope"), reply(501), reply(405), reply(200, b'{"name":null,"extensions":null}'), reply(200, b"{}")],
)
def test_a_server_that_does_not_describe_itself_gets_json(connect: Connect, description: bytes) -> None:
    server, connection = connect(FakeServer(None, paths={"/v2": description}))
    connection.infer({"x": X}, ["y"], LONG_S)
    assert server.asked[-1].headers["content-type"] == "application/json"


def test_every_request_has_an_id_of_its_own(connect: Connect) -> None:
    server, connection = connect(FakeServer(MLSERVER))
    for _ in range(3):
        connection.infer({"x": X}, ["y"], LONG_S)
    ids = [parts(asked)[0]["id"] for asked in server.asked if asked.method == "POST"]
    assert len(set(ids)) == 3
    assert all(ids)


@pytest.mark.parametrize("server_of", [TRITON, MLSERVER])
def test_the_outputs_that_are_wanted_are_asked_for(connect: Connect, server_of: Document) -> None:
    def infer(asked: Asked) -> bytes:
        question = parts(asked)[0]
        y = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}
        return answered({"id": question["id"], "outputs": [y, y | {"name": "z"}, y | {"name": "debug"}]})

    server, connection = connect(FakeServer(server_of, infer))
    assert list(connection.infer({"x": X}, ["z", "y"], LONG_S).outputs) == ["z", "y"]
    assert [output["name"] for output in parts(server.asked[-1])[0]["outputs"]] == ["z", "y"]
    assert list(connection.infer({"x": X}, [], LONG_S).outputs) == ["y", "z", "debug"]


def test_triton_is_told_how_long_a_batch_may_wait(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON))
    connection.infer({"x": X}, ["y"], 12.0)
    assert 0 < parts(server.asked[-1])[0]["parameters"]["timeout"] <= 12_000_000
    server, connection = connect(FakeServer(MLSERVER))
    connection.infer({"x": X}, ["y"], 12.0)
    assert "parameters" not in parts(server.asked[-1])[0]


def test_an_answer_may_mix_json_and_bytes(connect: Connect) -> None:
    def infer(asked: Asked) -> bytes:
        outputs = [
            {"name": "a", "datatype": "INT64", "shape": [2], "data": [1, 2]},
            {"name": "b", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
            {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}},
        ]
        raw = np.array([1, 2], np.float32).tobytes() + pack(np.array([b"a", b"b"], object))
        return answered({"id": parts(asked)[0]["id"], "outputs": outputs}, raw)

    outputs = connect(FakeServer(TRITON, infer))[1].infer({"x": X}, ["a", "b", "c"], LONG_S).outputs
    assert outputs["a"].tolist() == [1, 2]
    assert outputs["b"].tolist() == [[1], [2]]
    assert outputs["c"].tolist() == [b"a", b"b"]


Y = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
Y_RAW = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("head", "raw", "words"),
    [
        ({"id": "another", "outputs": [Y]}, None, "answers request 'another', not"),
        ({"outputs": []}, None, "has no output 'y'"),
        ({"outputs": [Y | {"name": "z"}]}, None, "has no output 'y'; it has 'z'"),
        ({"outputs": [Y, Y]}, None, "'y' twice"),
        ({"outputs": [Y | {"shape": [3]}]}, None, "holds 2 values, not those of"),
        ({"outputs": [Y | {"shape": [-2, -1]}]}, None, "impossible shape"),
        ({"outputs": [Y | {"datatype": "INT64", "data": [1.5, 2]}]}, None, "no INT64 tensor"),
        ({"outputs": [Y | {"datatype": "STRING"}]}, None, "STRING"),
        ({"outputs": [Y | {"data": [1.0, None]}]}, None, "gRPC"),
        ({"outputs": [{"name": "y"}]}, None, "not one of the Open Inference Protocol"),
        ({"outputs": {"y": 1}}, None, "not one of the Open Inference Protocol"),
        ({"predictions": [1]}, None, "not one of the Open Inference Protocol"),
        ({"outputs": [Y_RAW]}, b"1234567", "has 8 bytes, but 7 came"),
        ({"outputs": [Y_RAW]}, b"123456789", "1 bytes too many"),
        ({"outputs": [Y_RAW | {"shape": [3]}]}, b"12345678", "carries 8 bytes"),
        ({"outputs": [Y_RAW | {"parameters": {"binary_data_size": -1}}]}, b"", "has -1 bytes"),
        ({"outputs": [Y_RAW | {"parameters": {"binary_data_size": "8"}}]}, b"12345678", "has '8' bytes"),
    ],
)
def test_a_lie_is_a_bad_answer_that_names_the_server(
    connect: Connect, head: Document, raw: bytes | None, words: str
) -> None:
    server, connection = connect(FakeServer(TRITON, lambda asked: answered(head, raw)))
    with pytest.raises(BadAnswer, match=words) as caught:
        connection.infer({"x": X}, ["y"], LONG_S)
    assert caught.value.message.startswith(f"m at {server.address}: ")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(200, b"<html>welcome</html>"), "is no JSON"),
        (reply(200, b"[]"), "is no JSON object"),
        (reply(200, b""), "is no JSON"),
        (reply(200, b"{}", inference_header_content_length="99"), "has 2 bytes, but its JSON part '99'"),
        (reply(200, b"{}", inference_header_content_length="-1"), "JSON part '-1'"),
        (reply(200, b"{}", inference_header_content_length="9" * 30), "JSON part"),
        (reply(202, b"{}"), "HTTP 202"),
    ],
)
def test_a_success_that_is_none_is_a_bad_answer(connect: Connect, answer: bytes, words: str) -> None:
    with pytest.raises(BadAnswer, match=words) as caught:
        connect(FakeServer(TRITON, lambda asked: answer))[1].infer({"x": X}, ["y"], LONG_S)
    assert caught.value.message.count("m at http://") == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(200, b'{"error":"bad values"}'), ServerFailed),
        (reply(400, b'{"error":"unexpected shape for input"}'), Refused),
        (reply(400, b'{"error":"[request id: 1] inference request batch-size must be <= 32 for m"}'), BatchTooLarge),
        (reply(400, b"{\"error\":\"unexpected inference input 'q' for model 'm'\"}"), OtherSignature),
        (reply(500, b"Internal Server Error"), ServerFailed),
        (reply(503, b'{"error":"Exceeds maximum queue size"}'), ServerBusy),
        (reply(429, b"slow down", retry_after="3"), ServerBusy),
        (reply(503, b"<h1>Service Unavailable</h1>"), ServerAway),
        (reply(401, b"{}"), Misconfigured),
        (reply(302, location="/login"), Misconfigured),
    ],
)
def test_errors_of_a_batch(connect: Connect, answer: bytes, error: type[Exception]) -> None:
    server, connection = connect(FakeServer(TRITON, lambda asked: answer))
    with pytest.raises(error) as caught:
        connection.infer({"x": X}, ["y"], LONG_S)
    assert type(caught.value) is error
    assert str(server.address) in str(caught.value)


#: TorchServe's words for each call of a batch on which a handler raised.
FAILED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}


def test_a_batch_that_its_neighbours_spoiled_on_torchserve_is_sent_once_more(connect: Connect) -> None:
    calls: list[Asked] = []

    def infer(asked: Asked) -> bytes:
        calls.append(asked)
        return reply(503, json.dumps(FAILED).encode()) if len(calls) == 1 else echo(asked)

    _, connection = connect(FakeServer(KSERVE, infer), torchserve=True)
    assert np.array_equal(connection.infer({"x": X}, ["y"], LONG_S).outputs["y"], X)
    assert len(calls) == 2


@pytest.mark.parametrize(("torchserve", "calls"), [(True, 2), (False, 1)])
def test_a_batch_that_is_refused_again_is_to_blame_and_others_are_not_repeated(
    connect: Connect, torchserve: bool, calls: int
) -> None:
    made: list[Asked] = []

    def infer(asked: Asked) -> bytes:
        made.append(asked)
        return reply(503, json.dumps(FAILED).encode())

    _, connection = connect(FakeServer(KSERVE, infer), torchserve=torchserve)
    with pytest.raises(Refused):
        connection.infer({"x": X}, ["y"], LONG_S)
    assert len(made) == calls


def test_a_server_is_not_asked_again_for_what_it_is_because_it_is_busy(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON, lambda asked: reply(429, retry_after="2")))
    for _ in range(2):
        with pytest.raises(ServerBusy) as caught:
            connection.infer({"x": X}, ["y"], LONG_S)
        assert caught.value.retry_after_s == 2
    assert [asked.path for asked in server.asked].count("/v2") == 1


def calls(connection: OipHttp) -> list[Callable[[], object]]:
    """Return one call of each kind."""
    return [
        lambda: connection.infer({"x": X}, ["y"], LONG_S),
        lambda: connection.signature(LONG_S),
        lambda: connection.check_ready(LONG_S),
    ]


def test_a_model_that_is_not_there_needs_a_person(connect: Connect) -> None:
    gone = reply(404, b'{"error":"Request for unknown model: \'m\' is not found"}')
    paths = {"/v2/models/m": gone, "/v2/models/m/ready": reply(400, b'{"error":"Model version not ready"}')}
    _, connection = connect(FakeServer(TRITON, lambda asked: gone, paths))
    for call in calls(connection):
        with pytest.raises(NotFound, match="unknown model"):
            call()


def test_values_that_a_model_does_not_find_are_refused(connect: Connect) -> None:
    missing = reply(404, b'{"error":"key 7 is not in the table"}')
    with pytest.raises(Refused, match="key 7"):
        connect(FakeServer(TRITON, lambda asked: missing))[1].infer({"x": X}, ["y"], LONG_S)


@pytest.mark.parametrize("page", [reply(404, b"<html>404</html>"), reply(404)])
def test_an_address_where_no_model_server_is_needs_a_person(connect: Connect, page: bytes) -> None:
    here = FakeServer(TRITON)
    server, connection = connect(lambda asked: page)
    for call in calls(connection):
        with pytest.raises(NoModelServer, match="no model server of this kind"):
            call()
    server.answer = here
    connection.infer({"x": X}, ["y"], LONG_S)
    assert [asked.path for asked in server.asked][-2:] == ["/v2", "/v2/models/m/infer"], "it is asked what it is now"


def test_a_path_without_a_handler_refuses_no_values(connect: Connect) -> None:
    _, connection = connect(FakeServer(None, lambda asked: reply(404, b'{"detail":"Not Found"}')))
    with pytest.raises(NoModelServer):
        connection.infer({"x": X}, ["y"], LONG_S)


def test_a_model_that_loads_is_waited_for(connect: Connect) -> None:
    loading = {
        "/v2/models/m/ready": reply(400, b'{"error":"Model version not ready"}'),
        "/v2/models/m": reply(400, b'{"error":"Request for unknown model: \'m\' is not at ready state"}'),
    }
    with pytest.raises(ServerAway):
        connect(FakeServer(TRITON, paths=loading))[1].check_ready(LONG_S)


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


def test_the_time_of_a_call_covers_its_questions(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON, lambda asked: server.drip(echo(asked))))
    with pytest.raises(ServerAway, match="did not answer within"):
        connection.infer({"x": X}, ["y"], 0.3)


def test_nobody_there_is_a_server_that_is_away(closing: Closing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = closing(OipHttp(Address("http", "127.0.0.1", port), "m", access=Access()))
    for call in (connection.signature, connection.check_ready, lambda s: connection.infer({"x": X}, ["y"], s)):
        with pytest.raises(ServerAway, match="Connection refused"):
            call(LONG_S)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["y", "z"]), "datatype": st.sampled_from(["FP32", "INT64", "BOOL", "BYTES", "?"])},
    optional={
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}) | st.none(),
    },
)


@given(st.fixed_dictionaries({"outputs": st.lists(TENSORS, max_size=3) | JSON}), st.binary(max_size=20))
def test_any_answer_is_one_or_a_bad_answer(document: Document, raw: bytes) -> None:
    question = Question(request_id="1", inputs={}, outputs=["y"])
    try:
        answer = read_answer(document, memoryview(raw), question)
    except BadAnswer:
        return
    assert list(answer.outputs) == ["y"]


@given(st.binary(max_size=40), st.none() | st.text(max_size=4) | st.integers(-2, 50).map(str))
def test_any_body_is_split_or_a_bad_answer(body: bytes, length: str | None) -> None:
    try:
        document, rest = split(body, length)
    except BadAnswer:
        return
    assert isinstance(document, dict)
    assert len(rest) <= len(body)
