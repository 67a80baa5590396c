"""Statuses and texts of HTTP servers: what they mean for a batch."""

from __future__ import annotations

import datetime as dt
import json
import math
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtimes.remote.error_lines import SAID, is_line_of

from headrace.contracts.problem import in_one_line
from headrace.runtimes.remote.base import (
    LONGEST_RETRY_AFTER_S,
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
from headrace.runtimes.remote.transport.http_reply import Reply, error_text, failure, hidden_failure, retry_after_s
from headrace.runtimes.remote.transport.server_text import NoModelServer, NotFound

NOW = dt.datetime(2026, 11, 30, 12, 0, 0, tzinfo=dt.UTC)
TORCHSERVE_FAILED = {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
TORCHSERVE_EMPTY = {
    "code": 503,
    "type": "ServiceUnavailableException",
    "message": 'Model "m" has no worker to serve inference request. Please use scale workers API to add workers.',
}

#: Statuses with which a person has to do something, and what that is.
REMEDIES = [
    (401, "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
    (403, "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
    (404, "or correct [server] in its model.toml"),
    (405, "of another protocol or port of the server"),
    (407, "name an address that no proxy stands in front of"),
    (501, "the server can't do this"),
]


def failed(status: int, body: object = b"", **headers: str) -> Exception:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return failure(Reply(status, fields, raw), "m at http://host:1", NOW)


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, {"error": "bad values"}, Refused, "m at http://host:1: bad values"),
        (422, {"detail": [{"msg": "no"}]}, Refused, '[{"msg":"no"}]'),
        (400, {"error": "Task size 64 is larger than maximum input batch size 32"}, BatchTooLarge, "32"),
        (400, {"error": "all batch threads are busy"}, Refused, "busy"),
        (400, {"error": "unexpected inference input 'q' for model 'm'"}, OtherSignature, "'q'"),
        (400, b"<html><body>The plain HTTP request was sent to HTTPS port</body></html>", Misconfigured, "https://"),
        (401, {"error": "who?"}, Misconfigured, "HEADRACE_SERVER_CREDENTIALS_<NAME>"),
        (403, b"", Misconfigured, "Forbidden"),
        (
            404,
            b"<html>404 Not Found</html>",
            NoModelServer,
            "404 Not Found; no model server of this kind answers there",
        ),
        (404, b"", NoModelServer, "Not Found; no model server"),
        (404, b"7", NoModelServer, "no model server"),
        (404, {"detail": "Not Found"}, NoModelServer, "no model server"),
        (404, {"error": "nothing here"}, NotFound, "load the model there"),
        (404, {"error": "Request for unknown model: 'm' is not at ready state"}, ModelNotReady, "ready"),
        (405, b"", Misconfigured, "another protocol or port"),
        (408, b"", ServerAway, "Request Timeout"),
        (413, b"", BatchTooLarge, "Too Large"),
        (415, b"", Misconfigured, "another protocol or port"),
        (429, b"", ServerBusy, "Too Many Requests"),
        (500, {"error": "RuntimeError: mat1 and mat2"}, ServerFailed, "mat1"),
        (500, b"Internal Server Error", ServerFailed, "Internal Server Error"),
        (500, {"code": 500, "message": "Worker died."}, ServerFailed, "Worker died"),
        (500, {"error": "CUDA out of memory. Tried to allocate"}, BatchTooLarge, "CUDA"),
        (501, {"error": "no versions"}, Misconfigured, "no versions"),
        (502, b"", ServerAway, "Bad Gateway"),
        (503, b"", ServerAway, "Service Unavailable"),
        (503, {"error": "Model m is not ready"}, ModelNotReady, "not ready"),
        (503, {"error": "This task would start a fresh batch, but all batch threads are busy"}, ServerBusy, "busy"),
        (503, TORCHSERVE_FAILED, ServerFailed, "Prediction failed"),
        (503, TORCHSERVE_EMPTY, ServerBusy, "no worker"),
        (504, b"", ServerAway, "Timeout"),
        (507, {"message": "Out of resources"}, BatchTooLarge, "resources"),
        (204, b"", BadAnswer, "HTTP 204"),
        (302, b"", Misconfigured, "redirects"),
        (599, b"", ServerFailed, "HTTP 599"),
    ],
)
def test_a_status_and_its_text_have_a_meaning(status: int, body: object, error: type[Exception], words: str) -> None:
    found = failed(status, body)
    assert type(found) is error
    assert words in str(found)


@pytest.mark.parametrize("text", ["", "it is so", "<html>no</html>", "x" * 5000, "\0\n"])
def test_every_status_but_success_has_an_error(text: str) -> None:
    known = (ServerAway, BatchTooLarge, Refused, Misconfigured, BadAnswer)
    unknown = [status for status in range(201, 1000) if not isinstance(failed(status, text.encode()), known)]
    assert not unknown


def test_the_rows_that_a_server_takes_are_read() -> None:
    found = failed(400, {"error": "[request id: 1] inference request batch-size must be <= 32 for 'm'"})
    assert isinstance(found, BatchTooLarge)
    assert found.most_rows == 32


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_where_to(status: int) -> None:
    found = failed(status, b"", location="http://elsewhere/")
    assert type(found) is Misconfigured
    assert "'http://elsewhere/'" in str(found)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_names_a_time_is_busy_until_then(status: int) -> None:
    found = failed(status, b"", retry_after="7")
    assert type(found) is ServerBusy
    assert found.retry_after_s == 7


@pytest.mark.parametrize("value", ["31", "1000000000", "1" + "0" * 30, "1e300", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_asks_for_an_absurd_time_is_asked_again_sooner(value: str) -> None:
    found = failed(429, b"", retry_after=value)
    assert isinstance(found, ServerBusy)
    assert found.retry_after_s == LONGEST_RETRY_AFTER_S


@pytest.mark.parametrize("value", ["nan", "-inf", "inf", "-5", "soon", "Mon, 99 Foo 2026 99:99:99 GMT"])
def test_a_time_that_is_none_counts_for_nothing(value: str) -> None:
    found = failed(429, b"", retry_after=value)
    assert isinstance(found, ServerBusy)
    assert found.retry_after_s == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0.5", 0.5),
        ("Mon, 30 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 30 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 30 Nov 2026 12:00:30 -0000", 30),
        ("-5", 0),
        ("nan", 0),
        ("inf", 0),
        ("soon", 0),
        ("", 0),
        (" ", 0),
        ("1", 1),
        ("\u0661", 1),
        ("\u00b2", 0),
        ("9" * 5000, 0),
        ("1e400", 0),
        ("Mon, 99 Foo 2026 99:99:99 GMT", 0),
        ("Mon, 30 Nov 2020 08:00:00", 0),
        ("1, 2", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_s(value, NOW) == seconds


#: A number of a date, right or not.
NUMBERS = st.sampled_from([1, 12, 2026, 10**20]) | st.integers(0, 10_000)
DATES = st.builds("Mon, {} Nov {} {}:00:00 {}".format, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["GMT", "+9999", ""]))


@given(SAID | st.floats().map(str) | st.sampled_from(["nan", "inf"]) | DATES)
def test_any_retry_after_is_a_time_that_ends(value: str) -> None:
    assert 0 <= retry_after_s(value, NOW) < math.inf


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"a\\nb"}', "a b"),
        (b'{"error":{"message":"deep"}}', "deep"),
        (b'{"code":404,"type":"X","message":"no model"}', "no model"),
        (b'"just text"', "just text"),
        (b"plain\n  text", "plain text"),
        (b"<html><head><title>x</title></head><body><h1>502</h1>nginx &amp; co</body></html>", "502 nginx & co"),
        (b"<script>evil()</script>oops", "oops"),
        (b'{"error":""}', '{"error":""}'),
        (b"", ""),
        (b"\xff\xfe", "��"),
    ],
)
def test_the_servers_words_are_found(body: bytes, text: str) -> None:
    assert error_text(body) == text


def test_a_page_is_shortened() -> None:
    assert len(error_text(b"<p>" + b"word " * 1000)) < 250


#: What an error may hold: bytes of any kind, a page, or words in one of the fields of JSON where servers put them.
BODIES = (
    st.binary(max_size=200)
    | SAID.map(lambda text: f"<html><body>{text}</body></html>".encode(errors="replace"))
    | st.builds(
        lambda field, text: json.dumps({field: text}).encode(),
        st.sampled_from(["error", "message", "detail", "reason", "other"]),
        SAID,
    )
)

#: Those that have names come often enough for what is special to some of them.
STATUSES = st.sampled_from([status.value for status in HTTPStatus if status > HTTPStatus.OK]) | st.integers(201, 599)

#: All that `Connection.infer` raises.
DECLARED = (ServerAway, BatchTooLarge, Refused, Misconfigured, BadAnswer)


@given(STATUSES, BODIES, st.dictionaries(st.sampled_from(["retry_after", "location"]), SAID))
def test_any_answer_but_success_is_a_declared_error_in_one_line_that_names_the_server(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    found = failed(status, body, **headers)
    assert isinstance(found, DECLARED)
    assert is_line_of("m at http://host:1", str(found))


@given(st.sampled_from(REMEDIES), SAID)
def test_a_remedy_is_told_however_much_the_server_said(status_and_remedy: tuple[int, str], text: str) -> None:
    status, remedy = status_and_remedy
    found = str(failed(status, {"error": text}))
    assert found.endswith(remedy)
    assert in_one_line(found) == found, "a report of the problem holds all of it"


@given(SAID)
def test_any_error_in_a_success_is_a_declared_error_in_one_line_that_names_the_server(text: str) -> None:
    found = hidden_failure({"error": text}, "m at http://host:1")
    assert isinstance(found, DECLARED) if text else found is None
    assert not text or is_line_of("m at http://host:1", str(found))


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"error": "values"}, ServerFailed),
        ({"error": {"code": 3}}, ServerFailed),
        ({"error": "Task size 64 is larger than maximum input batch size 32"}, BatchTooLarge),
        ({"error": "all batch threads are busy"}, ServerFailed),
    ],
)
def test_an_error_in_a_success_is_one(document: dict[str, object], error: type[Exception]) -> None:
    assert type(hidden_failure(document, "m")) is error


@pytest.mark.parametrize("document", [{}, {"error": None}, {"error": ""}, {"outputs": []}])
def test_a_success_without_an_error_is_none(document: dict[str, object]) -> None:
    assert hidden_failure(document, "m") is None
