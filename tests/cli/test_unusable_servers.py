"""`headrace models add --server` where no package can be made: one line with cause and remedy, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from tests.cli.conftest import Outcome
from tests.lifecycle.servers.served import Served, by_oip, by_tfserving
from tests.runtimes.remote.certificates import Certificate, certificate, expired
from tests.runtimes.remote.grpc.scripted import Answerer
from tests.runtimes.remote.grpc.scripted import ScriptedServer as GrpcServer
from tests.runtimes.remote.http.scripted import Asked, reply
from tests.runtimes.remote.http.scripted import ScriptedServer as HttpServer

from headrace.runtimes.remote.messages import oip, tfserving
from headrace.runtimes.remote.messages.wire import serialized

MODEL = {
    "name": "m",
    "platform": "python",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


def over_http(asked: Asked) -> bytes:
    """Describe the model; it never runs."""
    paths = {"/v2": {"name": "server", "version": "1", "extensions": []}, "/v2/models/m": MODEL}
    return reply(200, json.dumps(paths[asked.path]).encode()) if asked.path in paths else reply(404)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return expired(tmp_path_factory.mktemp("old"))


Ports: TypeAlias = Callable[..., int]
Refused: TypeAlias = Callable[[str], str]


@pytest.fixture
def ports() -> Iterator[Callable[..., int]]:
    """Start servers, with a certificate if they are to speak TLS, and return their ports."""
    with ExitStack() as stack:

        def start(scheme: str, answers: object = None, shown: Certificate | None = None) -> int:
            server: GrpcServer | HttpServer
            if scheme == "http":
                server = HttpServer(answers or over_http, shown.server_context() if shown else None)  # type: ignore[arg-type]
            else:
                pair = [(shown.key.read_bytes(), shown.cert.read_bytes())] if shown else []
                credentials = grpc.ssl_server_credentials(pair) if shown else None
                server = GrpcServer(answers or by_oip(Served()), credentials)  # type: ignore[arg-type]
            stack.callback(server.stop)
            return server.address.port

        yield start


@pytest.fixture
def refused(headrace: Callable[..., Outcome], home: Path) -> Callable[[str], str]:
    """Return the one line with which `models add` refuses a server."""

    def add(uri: str) -> str:
        done = headrace("models", "add", "--server", uri, "--remote-name", "m")
        assert done.code == 1
        assert done.out == ""
        assert done.err.count("\n") == 1
        # Neither a package nor a part of one.
        assert list((home / "models").rglob("*")) == []
        return done.err

    return add


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_expired_certificate(
    ports: Ports, refused: Refused, old: Certificate, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HEADRACE_SERVER_CA_FILE", str(old.cert))
    line = refused(f"{scheme}s://127.0.0.1:{ports(scheme, shown=old)}")
    assert "certificate is refused: certificate has expired; renew it, or" in line


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_tls_address_of_a_port_that_speaks_plain_text(ports: Ports, refused: Refused, scheme: str) -> None:
    port = ports(scheme)
    line = refused(f"{scheme}s://127.0.0.1:{port}")
    assert f"the server doesn't speak TLS on that port; is it {scheme}://127.0.0.1:{port}?" in line


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_plain_address_of_a_port_that_speaks_tls(
    ports: Ports, refused: Refused, good: Certificate, scheme: str
) -> None:
    port = ports(scheme, shown=good)
    line = refused(f"{scheme}://127.0.0.1:{port}")
    assert f"the server speaks TLS on that port; write {scheme}s://127.0.0.1:{port}" in line


def loading_everywhere(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' is not at ready state")


def loading_to_whom_asks(request: bytes, context: grpc.ServicerContext) -> bytes:
    return serialized(oip.ModelReadyResponse(ready=False))


def loading_in_tfserving() -> dict[str, Answerer]:
    """TensorFlow Serving doesn't find a model that it loads; its status tells."""

    def absent(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)")

    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        response = tfserving.GetModelStatusResponse()
        response.model_version_status.add(version=7, state=tfserving.STATES["LOADING"])
        return serialized(response)

    prefix = "/tensorflow.serving."
    return {
        f"{prefix}PredictionService/GetModelMetadata": absent,
        f"{prefix}PredictionService/Predict": absent,
        f"{prefix}ModelService/GetModelStatus": status,
    }


TFSERVING_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
SERVICE = "/inference.GRPCInferenceService"
LOADING = {
    "oip, all calls": dict.fromkeys((f"{SERVICE}/ModelMetadata", f"{SERVICE}/ModelReady"), loading_everywhere),
    "oip, described": by_oip(Served()) | {f"{SERVICE}/ModelReady": loading_to_whom_asks},
    "tfserving": loading_in_tfserving(),
    "tfserving, described": by_tfserving(Served()) | {TFSERVING_STATUS: loading_in_tfserving()[TFSERVING_STATUS]},
}


@pytest.mark.parametrize("kind", LOADING)
def test_a_model_that_is_loading(ports: Ports, refused: Refused, kind: str) -> None:
    line = refused(f"grpc://127.0.0.1:{ports('grpc', LOADING[kind])}")
    assert "; wait until the server has loaded it, and add it then" in line


@pytest.mark.parametrize(
    "answer", [reply(503, b'{"error":"Model m is not ready"}'), reply(200, b'{"name":"m","ready":false}')]
)
def test_a_model_that_is_loading_over_http(ports: Ports, refused: Refused, answer: bytes) -> None:
    def server(asked: Asked) -> bytes:
        return answer if asked.path == "/v2/models/m/ready" else over_http(asked)

    line = refused(f"http://127.0.0.1:{ports('http', server)}")
    assert "not ready" in line
    assert "; wait until the server has loaded it, and add it then" in line
