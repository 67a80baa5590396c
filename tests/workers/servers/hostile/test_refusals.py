"""Servers that refuse: busy, away, too large a batch, one bad value. What is transient counts for nobody."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.conftest import PATIENCE_S, Arena, Behaviour, End, Ordeal, doubled, outcomes
from tests.workers.servers.hostile.grpc_peer import refusing, x_of
from tests.workers.servers.hostile.http_peer import Call, Hangup

from headrace.contracts import DeadlineExceeded, HeadraceError, InferenceFailed, InputRefused
from headrace.producers import Handle

Code = grpc.StatusCode

#: Retry-After of servers that are busy for a moment; "" stands for a second from now, as a date.
#: tests/runtimes/remote/http/test_http_reply.py has all forms.
RETRY_AFTER = {
    "none": None,
    "1": "1",
    "date": "",
    "past": formatdate(0, usegmt=True),
    "text": "soon",
    "blank": " ",
    "long": "9" * 5000,
    "not-ascii": "\u00b2",
}

#: Longer than any test waits: the request's own deadline ends it.
ABSURD = {"billion": "1000000000", "huge": "1" + "0" * 30, "year-9999": "Fri, 31 Dec 9999 23:59:59 GMT"}

BUSY_HTTP = [*(f"h-429-{name}" for name in RETRY_AFTER), "h-503-none", "h-503-1", "h-503-text"]
BUSY_GRPC = {
    "g-unavailable": (Code.UNAVAILABLE, "no"),
    "g-exhausted": (Code.RESOURCE_EXHAUSTED, "too many requests in flight"),
    "g-threads": (Code.UNAVAILABLE, "all batch threads are busy"),
}
GATEWAY = ["h-502"]
#: One of each kind; tests/runtimes/remote/grpc/test_grpc_status.py has all codes, http/test_http_reply.py all statuses.
FOR_GOOD_GRPC = {
    f"g-code-{code.name.lower()}": code
    for code in (
        Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS,
    )
}  # fmt: skip
#: Which of these the server means for good is the worker's to judge.
FOR_GOOD_HTTP = [300, 304, 400, 401, 404, 405, 408, 413, 418, 426, 500, 501, 507, 599]
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
ENDS_CONNECTIONS = ["h-crash-poison", "g-crash-poison", "h-hang-poison", "h-500-poison"]
POISON = ["h-400-poison", "h-422-poison", "g-invalid-poison", *ENDS_CONNECTIONS]
_ABSURD = [f"h-{status}-{name}" for status in ("429", "503") for name in ABSURD]
PACKAGES: dict[str, dict[str, Any]] = {
    name: {}
    for name in (
        *BUSY_HTTP, *BUSY_GRPC, *GATEWAY, *FOR_GOOD_GRPC, *(f"h-status-{status}" for status in FOR_GOOD_HTTP),
        *_ABSURD, *ROWS, *POISON,
    )
}  # fmt: skip
ENVIRONMENT = {"HEADRACE_SERVER_TIMEOUT_S": "2"}


def _http_refusing(status: str, retry_after: str | None) -> http_peer.Behaviour:
    def refuse(call: Call) -> None:
        when = formatdate(time.time() + 1, usegmt=True) if retry_after == "" else retry_after
        call.refuse(status, "busy", **({} if when is None else {"retry_after": when}))

    return refuse


def _status_of(model: str) -> http_peer.Behaviour:
    _, status, *name = model.split("-", 2)
    values = RETRY_AFTER | ABSURD
    return _http_refusing(f"{status} Not Now", values[name[0]] if name else None)


class Absurd(NamedTuple):
    """What became of requests of one model that asks for an absurd time. patient: those without a deadline."""

    hasty: list[Handle]
    patient: list[Handle]
    until: float


@pytest.fixture(scope="module", autouse=True)
def absurd(arena: Arena) -> dict[str, Absurd]:
    """Begins with the module, so that the time passes while other tests run."""
    for model in _ABSURD:
        arena.behave(model, _status_of(model))
    until = time.monotonic() + PATIENCE_S
    begun = {
        model: Absurd(arena.submit(model, 1.0, 2.0, deadline_s=2.0), arena.submit(model, *range(20)), until)
        for model in _ABSURD
    }
    for model in _ABSURD:
        arena.is_called(model)
    arena.mend(*_ABSURD)
    return begun


class Waiting(NamedTuple):
    """Requests of one model while it was busy. early: how many of them had an end before it was mended."""

    early: int
    ends: list[End]
    attempts: set[int]


@pytest.fixture(scope="module")
def waiting(arena: Arena) -> dict[str, Waiting]:
    behaviours: dict[str, Behaviour] = {
        **{model: _status_of(model) for model in (*BUSY_HTTP, *GATEWAY)},
        **{model: refusing(*status) for model, status in BUSY_GRPC.items()},
    }
    for model, behaviour in behaviours.items():
        arena.behave(model, behaviour)
    handles = {model: arena.submit(model, *range(20)) for model in behaviours}
    for model in behaviours:
        # More than are in flight together: there are batches that were refused twice.
        arena.is_called(model, 4)
    early = {model: sum(handle.done() for handle in each) for model, each in handles.items()}
    arena.is_well()
    arena.mend(*behaviours)
    return {model: Waiting(early[model], outcomes(each), arena.attempts(each)) for model, each in handles.items()}


@pytest.mark.parametrize("model", [*BUSY_HTTP, *BUSY_GRPC, *GATEWAY])
def test_requests_wait_for_a_server_that_is_busy_or_away_and_no_wait_counts(
    arena: Arena, waiting: dict[str, Waiting], model: str
) -> None:
    assert waiting[model] == (0, doubled(range(20)), {1})
    arena.has_done_all_of(model)


@pytest.fixture(scope="module")
def refused(arena: Arena) -> Ordeal:
    def answering(status: int) -> http_peer.Behaviour:
        return lambda call: call.refuse(f"{status} It Is So", "it is so")

    behaviours: dict[str, Behaviour] = {
        **{model: refusing(code, "it is so") for model, code in FOR_GOOD_GRPC.items()},
        **{f"h-status-{status}": answering(status) for status in FOR_GOOD_HTTP},
    }
    return arena.undergo(behaviours, range(1, 4), deadline_s=3.0)


@pytest.mark.parametrize("model", [*FOR_GOOD_GRPC, *(f"h-status-{status}" for status in FOR_GOOD_HTTP)])
def test_a_refusal_for_good_ends_by_name_or_waits(arena: Arena, refused: Ordeal, model: str) -> None:
    ends = refused.ends[model]
    assert all(isinstance(each, InferenceFailed | DeadlineExceeded) for each in ends), ends
    assert refused.is_over(model), refused.later[model]
    arena.has_done_all_of(model)


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


class Rows(NamedTuple):
    """What became of requests of a model that takes 4 rows. later: the rows of the batches after the first hundreds."""

    single: list[End]
    many: object
    learned: list[End]
    later: list[int]


@pytest.fixture(scope="module")
def rows(arena: Arena) -> dict[str, Rows]:
    """Requests of one row, then of many rows, then of one row again."""
    for model in ROWS:
        arena.behave(model, _at_most_four(model))
    handles = {model: arena.submit(model, *range(200)) for model in ROWS}
    single = {model: outcomes(each) for model, each in handles.items()}
    x = np.arange(30, dtype=np.float32)[:, None]
    requests = {model: arena.client.submit(model, {"x": x}) for model in ROWS}
    many = {model: _rows_of(handle) for model, handle in requests.items()}
    before = {model: len(arena.calls(model)) for model in ROWS}
    handles = {model: arena.submit(model, *range(200)) for model in ROWS}
    learned = {model: outcomes(each) for model, each in handles.items()}
    arena.is_well()
    return {
        model: Rows(single[model], many[model], learned[model], arena.calls(model)[before[model] :]) for model in ROWS
    }


def _rows_of(handle: Handle) -> object:
    try:
        return handle.result(timeout_s=PATIENCE_S)["y"].ravel().tolist()
    except HeadraceError as error:
        return error


@pytest.mark.parametrize("model", ROWS)
def test_no_request_of_one_row_fails_because_its_batch_is_too_large(
    arena: Arena, rows: dict[str, Rows], model: str
) -> None:
    assert rows[model].single == rows[model].learned == doubled(range(200))
    arena.has_done_all_of(model)


@pytest.mark.parametrize("model", SAYS)
def test_a_request_of_many_rows_is_cut_to_what_the_server_takes(rows: dict[str, Rows], model: str) -> None:
    assert rows[model].many == doubled(range(30))


@pytest.mark.parametrize("model", SAYS)
def test_a_ceiling_is_learned_whatever_the_words(rows: dict[str, Rows], model: str) -> None:
    later = rows[model].later
    assert rows[model].learned == doubled(range(200))
    # A ceiling without a number in the words is tried out now and then.
    assert sum(count > 4 for count in later) <= len(later) / 10, later


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


@pytest.fixture(scope="module", autouse=True)
def poisoned(arena: Arena) -> dict[str, list[Handle]]:
    """Begins with the module, as `absurd` does: the slowest of these servers hangs until each call's time is over."""
    for model in POISON:
        arena.behave(model, _poisoned(model))
    return {
        model: arena.submit(model, *range(40), deadline_s=20.0)
        if model in ENDS_CONNECTIONS
        else arena.submit(model, *range(40), 13.0)
        for model in POISON
    }


@pytest.mark.parametrize("model", ["h-400-poison", "h-422-poison", "g-invalid-poison"])
def test_one_bad_value_fails_alone(arena: Arena, poisoned: dict[str, list[Handle]], model: str) -> None:
    ends = outcomes(poisoned[model])
    bad = [ends.pop(40), ends.pop(13)]
    assert all(isinstance(each, InputRefused) and "no 13" in each.message for each in bad), bad
    assert ends == doubled(x for x in range(40) if x != 13)
    arena.has_done_all_of(model)


@pytest.mark.parametrize("model", ENDS_CONNECTIONS)
def test_one_value_that_ends_connections_does_not_stop_its_neighbours(
    arena: Arena, poisoned: dict[str, list[Handle]], model: str
) -> None:
    ends = outcomes(poisoned[model])
    assert isinstance(ends.pop(13), DeadlineExceeded | InferenceFailed)
    assert ends == doubled(x for x in range(40) if x != 13)
    arena.has_done_all_of(model)


@pytest.mark.parametrize("model", [f"h-{status}-{name}" for status in ("429", "503") for name in ABSURD])
def test_a_server_that_asks_for_an_absurd_time_is_asked_again_all_the_same(
    arena: Arena, absurd: dict[str, Absurd], model: str
) -> None:
    hasty, patient, until = absurd[model]
    ends = outcomes(hasty)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    ends = outcomes(patient, max(until - time.monotonic(), 0.1))
    assert ends == doubled(range(20)), ends
    arena.has_done_all_of(model)
