"""Errors that servers answer, and servers that don't: what they mean for a batch."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import numpy as np
import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.oip.conftest import Connect
from tests.runtimes.remote.http.oip.fake_server import KSERVE, LONG_S, TRITON, FakeServer, X, echo
from tests.runtimes.remote.http.scripted import Asked, reply

from headrace.runtimes.remote.base import (
    Access,
    Address,
    BatchTooLarge,
    Misconfigured,
    OtherSignature,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
)
from headrace.runtimes.remote.oip.http import OipHttp
from headrace.runtimes.remote.transport.server_text import NoModelServer, NotFound


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
