"""Servers that refuse: busy, away, too large a batch, one bad value. What is transient counts for nobody."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import grpc
import numpy as np
import pytest
from tests.eventually import eventually
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.conftest import PATIENCE_S, Arena, outcome
from tests.workers.servers.hostile.grpc_peer import refusing, x_of
from tests.workers.servers.hostile.http_peer import Call, Hangup

from headrace.contracts import DeadlineExceeded, InferenceFailed, InputRefused

Code = grpc.StatusCode

#: Retry-After, and when it is read as HTTP says or is nonsense.
RETRY_AFTER = {
    "none": None,
    "0": "0",
    "1": "1",
    "date": "",  # a second from now
    "past": formatdate(0, usegmt=True),
    "negative": "-5",
    "fraction": "0.5",
    "text": "soon",
    "empty": " ",
    "arabic": "\u0661".encode().decode("latin-1"),
    "superscript": "\u00b2",
    "long": "9" * 5000,
    "nan": "nan",
    "infinite": "inf",
    "exponent": "1e400",
    "bad-date": "Mon, 99 Foo 2026 99:99:99 GMT",
    "date-no-zone": "Mon, 30 Nov 2020 08:00:00",
    "list": "1, 2",
}

#: Longer than any test waits: the request's own deadline ends it.
ABSURD = {"billion": "1000000000", "huge": "1" + "0" * 30, "year-9999": "Fri, 31 Dec 9999 23:59:59 GMT"}

BUSY_HTTP = [f"h-{status}-{name}" for status in ("429", "503") for name in RETRY_AFTER]
BUSY_GRPC = {
    "g-unavailable": (Code.UNAVAILABLE, "no"),
    "g-exhausted": (Code.RESOURCE_EXHAUSTED, "too many requests in flight"),
    "g-threads": (Code.UNAVAILABLE, "all batch threads are busy"),
    "g-empty": (Code.UNAVAILABLE, ""),
}
GATEWAY = ["h-502", "h-504"]
FOR_GOOD_GRPC = {f"g-code-{code.name.lower()}": code for code in Code if code is not Code.OK}
#: Which of these the server means for good is the worker's to judge.
FOR_GOOD_HTTP = [
    *(
        300,
        304,
        400,
        401,
        402,
        403,
        404,
        405,
        406,
        408,
        409,
        410,
        411,
        413,
        415,
        417,
        418,
        422,
        424,
        425,
        426,
        431,
        451,
    ),
    *(500, 501, 505, 507, 508, 511, 599),
]
#: Words of servers that take 4 rows at most.
SAYS = {
    "h-400-triton": "inference request batch-size must be <= 4 for 'm'",
    "h-400-kserve": "batch size 8 exceeds maximum 4",
    "h-400-plain": "batch too large",
    "h-400-numbers": "error 2 in graph 7: Task size 8 is larger than maximum input batch size 4",
    "h-413-": "Request Entity Too Large",
    "h-413-html": "<html><h1>413</h1></html>",
    "g-invalid-tfs": "Task size 8 is larger than maximum input batch size 4",
    "g-invalid-triton": "[request id: <id_unknown>] inference request batch-size must be <= 4 for 'm'",
    "g-invalid-ovms": "Invalid input batch size - Expected: 4; Actual: 8 - input name: x",
    "g-invalid-plain": "too many rows",
}
#: Words from which nobody can tell: requests of one row are served all the same.
VAGUE = {
    "h-400-empty": "",
    "h-400-zero": "batch size must be <= 0",
    "h-400-too-high": "batch-size must be <= 400 for 'm'",
    "g-exhausted-bytes": "Received message larger than max (5000 vs. 4096)",
    "g-range": "batch of 8 rows is out of range",
}
ROWS = {**SAYS, **VAGUE}
POISON = [
    "h-400-poison",
    "h-422-poison",
    "g-invalid-poison",
    "h-crash-poison",
    "g-crash-poison",
    "h-hang-poison",
    "h-500-poison",
]
PACKAGES: dict[str, dict[str, Any]] = {
    name: {}
    for name in (
        *BUSY_HTTP, *BUSY_GRPC, *GATEWAY, *FOR_GOOD_GRPC, *(f"h-status-{status}" for status in FOR_GOOD_HTTP),
        *(f"h-{status}-{name}" for status in ("429", "503") for name in ABSURD), *ROWS, *POISON,
    )
}  # fmt: skip


def _peer(arena: Arena, model: str) -> Any:
    return arena.http if model.startswith("h-") else arena.grpc


def _http_refusing(status: str, retry_after: str | None) -> http_peer.Behaviour:
    def refuse(call: Call) -> None:
        when = formatdate(time.time() + 1, usegmt=True) if retry_after == "" else retry_after
        call.refuse(status, "busy", **({} if when is None else {"retry_after": when}))

    return refuse


def _well_again(arena: Arena, model: str, behaviour: Any, calls: int) -> None:
    """Assert that requests wait for a server that behaves so, and that no wait counts as an attempt."""
    peer = _peer(arena, model)
    peer.models[model].infer = behaviour
    handles = arena.submit(model, *range(30))
    eventually(lambda: len(peer.models[model].calls) >= calls, PATIENCE_S, "refused batches")
    assert not any(handle.done() for handle in handles)
    peer.models[model].infer = (http_peer if model.startswith("h-") else grpc_peer).well
    assert [outcome(handle) for handle in handles] == [2.0 * x for x in range(30)]
    assert {arena.client.get(handle.id).attempts for handle in handles} == {1}
    arena.is_well(model)


@pytest.mark.parametrize("model", BUSY_HTTP)
def test_requests_wait_for_a_busy_http_server(arena: Arena, model: str) -> None:
    _, status, name = model.split("-", 2)
    text = {"429": "429 Too Many Requests", "503": "503 Service Unavailable"}[status]
    _well_again(arena, model, _http_refusing(text, RETRY_AFTER[name]), 3)


@pytest.mark.parametrize("model", [*BUSY_GRPC, *GATEWAY])
def test_requests_wait_for_a_server_that_is_away(arena: Arena, model: str) -> None:
    if model in BUSY_GRPC:
        _well_again(arena, model, refusing(*BUSY_GRPC[model]), 8)
    else:
        _well_again(arena, model, _http_refusing(f"{model[2:]} Gateway", None), 8)


@pytest.mark.parametrize("model", [f"h-{status}-{name}" for status in ("429", "503") for name in ABSURD])
def test_a_server_that_asks_for_an_absurd_time_is_asked_again_all_the_same(arena: Arena, model: str) -> None:
    _, status, name = model.split("-", 2)
    arena.http.models[model].infer = _http_refusing(f"{status} Busy", ABSURD[name])
    ends = arena.ends(model, 1.0, 2.0, deadline_s=2.0)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    arena.is_well(model)
    arena.mend(model)


@pytest.mark.parametrize("model", FOR_GOOD_GRPC)
def test_a_code_for_good_ends_by_name_or_waits(arena: Arena, model: str) -> None:
    arena.grpc.models[model].infer = refusing(FOR_GOOD_GRPC[model], "it is so")
    ends = arena.ends(model, 1.0, 2.0, 3.0, deadline_s=3.0)
    assert all(isinstance(each, InferenceFailed | DeadlineExceeded) for each in ends), ends
    arena.is_well(model)
    arena.mend(model)


@pytest.mark.parametrize("status", FOR_GOOD_HTTP)
def test_a_status_for_good_ends_by_name_or_waits(arena: Arena, status: int) -> None:
    model = f"h-status-{status}"
    arena.http.models[model].infer = lambda call: call.refuse(f"{status} It Is So", "it is so")
    ends = arena.ends(model, 1.0, 2.0, 3.0, deadline_s=3.0)
    assert all(isinstance(each, InferenceFailed | DeadlineExceeded) for each in ends), ends
    arena.is_well(model)
    arena.mend(model)


def _at_most_four(model: str) -> Any:
    text = ROWS[model]
    if model.startswith("h-"):
        status = {"400": "400 Bad Request", "413": "413 Content Too Large"}[model.split("-")[1]]

        def over_http(call: Call) -> None:
            if len(call.x) > 4:
                call.respond(text, status, content_type="text/html") if "<" in text else call.refuse(status, text)
            else:
                http_peer.well(call)

        return over_http
    code = {"invalid": Code.INVALID_ARGUMENT, "exhausted": Code.RESOURCE_EXHAUSTED, "range": Code.OUT_OF_RANGE}

    def over_grpc(request: Any, context: Any) -> Any:
        if len(x_of(request)) > 4:
            context.abort(code[model.split("-")[1]], text)
        return grpc_peer.well(request, context)

    return over_grpc


@pytest.mark.parametrize("model", ROWS)
def test_no_request_of_one_row_fails_because_its_batch_is_too_large(arena: Arena, model: str) -> None:
    _peer(arena, model).models[model].infer = _at_most_four(model)
    arena.hears(model, *range(200))
    arena.is_well(model)


@pytest.mark.parametrize("model", SAYS)
def test_a_request_of_many_rows_is_cut_to_what_the_server_takes(arena: Arena, model: str) -> None:
    _peer(arena, model).models[model].infer = _at_most_four(model)
    x = np.arange(30, dtype=np.float32)[:, None]
    assert arena.client.predict(model, {"x": x}, timeout_s=PATIENCE_S)["y"].tolist() == (2 * x).tolist()
    arena.is_well(model)


@pytest.mark.parametrize("model", SAYS)
def test_a_ceiling_is_learned_whatever_the_words(arena: Arena, model: str) -> None:
    models = _peer(arena, model).models
    models[model].infer = _at_most_four(model)
    arena.hears(model, *range(200))
    before = len(models[model].calls)
    arena.hears(model, *range(200))
    later = models[model].calls[before:]
    # A ceiling without a number in the words is tried out now and then.
    assert sum(rows > 4 for rows in later) <= len(later) / 10, later
    arena.is_well(model)


def _poisoned(model: str) -> Any:
    """A server that can't bear the value 13."""
    kind = model.split("-")[1]
    if model.startswith("g-"):

        def over_grpc(request: Any, context: Any) -> Any:
            if 13.0 in x_of(request):
                code = Code.INVALID_ARGUMENT if kind == "invalid" else Code.UNAVAILABLE
                context.abort(code, "Socket closed" if kind == "crash" else "no 13")
            return grpc_peer.well(request, context)

        return over_grpc

    def over_http(call: Call) -> None:
        if 13.0 not in call.x:
            http_peer.well(call)
        elif kind == "crash":
            raise Hangup
        elif kind == "hang":
            time.sleep(30)
        else:
            call.respond(json.dumps({"error": "no 13"}), f"{kind} Refused")

    return over_http


@pytest.mark.parametrize("model", ["h-400-poison", "h-422-poison", "g-invalid-poison"])
def test_one_bad_value_fails_alone(arena: Arena, model: str) -> None:
    _peer(arena, model).models[model].infer = _poisoned(model)
    ends = [outcome(handle) for handle in arena.submit(model, *range(40), 13.0, *range(40, 60))]
    bad = [ends.pop(40), ends.pop(13)]
    assert all(isinstance(each, InputRefused) and "no 13" in each.message for each in bad), bad
    assert ends == [2.0 * x for x in range(60) if x != 13]
    arena.is_well()


@pytest.mark.parametrize("model", ["h-crash-poison", "g-crash-poison", "h-hang-poison", "h-500-poison"])
def test_one_value_that_ends_connections_does_not_stop_its_neighbours(arena: Arena, model: str) -> None:
    _peer(arena, model).models[model].infer = _poisoned(model)
    handles = arena.submit(model, *range(40), deadline_s=20.0)
    ends = [outcome(handle) for handle in handles]
    assert isinstance(ends.pop(13), DeadlineExceeded | InferenceFailed)
    assert ends == [2.0 * x for x in range(40) if x != 13]
    arena.is_well()
