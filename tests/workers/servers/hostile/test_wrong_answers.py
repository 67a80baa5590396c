"""Servers whose answers aren't what the package says: each request ends by name, and none gets another's answer.

One model for each kind of wrong answer; tests/runtimes/remote/test_wrong_answers.py has them all.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.runtimes.remote import wrong_answers
from tests.runtimes.remote.wrong_answers import json_answer
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.conftest import Arena, Ordeal
from tests.workers.servers.hostile.grpc_peer import x_of
from tests.workers.servers.hostile.http_peer import Call

from headrace.contracts import DeadlineExceeded, InferenceFailed

#: Of the answers in `wrong_answers`: rows, outputs, datatypes, shapes, values, JSON, sizes of what follows it.
HTTP = (
    "too-few", "too-many", "no-outputs", "outputs-object", "other-name", "twice", "fp64", "no-such-datatype", "wider",
    "shape-negative", "shape-huge", "data-ragged", "nan", "overflow", "html", "empty", "half-json", "json-deep",
    "not-utf8", "long-number", "header-length-beyond", "header-length-huge", "binary-size-lie", "binary-size-huge",
)  # fmt: skip
GRPC = (
    "too-few", "too-many", "empty-message", "other-name", "twice", "fp64", "no-such-datatype", "wider",
    "shape-negative", "shape-huge", "raw-too-short", "raw-two", "typed-too-few", "nan", "garbage", "truncated",
)  # fmt: skip


def _over_http(name: str) -> http_peer.Behaviour:
    def respond(call: Call) -> None:
        body, json_length = wrong_answers.HTTP[name](2 * call.x)
        headers = {} if json_length is None else {"Inference_Header_Content_Length": json_length}
        call.respond(body, **headers)

    return respond


def _over_grpc(name: str) -> grpc_peer.Behaviour:
    return lambda request, context: wrong_answers.GRPC[name](2 * x_of(request))


BEHAVIOURS: dict[str, Any] = {
    **{f"h-{name}": _over_http(name) for name in HTTP},
    **{f"g-{name}": _over_grpc(name) for name in GRPC},
    # What is wrong is not in the body.
    "h-error-body": lambda call: call.respond('{"error": "CUDA is out of order"}'),
    "h-no-content": lambda call: call.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
}
PACKED = {"h-gzip-lie": lambda call: call.respond(json.dumps(json_answer(2 * call.x)), content_encoding="gzip")}
_ALL = [*BEHAVIOURS, *PACKED]
PACKAGES = {name: {"nan": "refuse"} for name in _ALL}


@pytest.fixture(scope="module")
def ordeal(arena: Arena) -> Ordeal:
    wrong = arena.undergo(BEHAVIOURS, range(1, 7), deadline_s=30.0)
    packed = arena.undergo(PACKED, range(1, 7), deadline_s=2.0)
    return Ordeal(wrong.ends | packed.ends, wrong.later | packed.later)


@pytest.mark.parametrize("model", _ALL)
def test_a_wrong_answer_fails_its_requests_by_name_and_no_other_model_feels_it(
    arena: Arena, ordeal: Ordeal, model: str
) -> None:
    ends = ordeal.ends[model]
    # What is packed, or says so, is a matter of the way: requests wait.
    wanted = DeadlineExceeded if model in PACKED else InferenceFailed
    assert all(isinstance(each, wanted) and each.message for each in ends), ends
    assert ordeal.is_over(model), ordeal.later[model]
    arena.has_done_all_of(model)
