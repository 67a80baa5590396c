"""Statuses and texts of HTTP servers: what they mean for a batch."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.binary(max_size=200), st.integers(100, 599))
def test_any_answer_has_a_meaning(body: bytes, status: int) -> None:
    assert isinstance(failed(status, body), Exception)


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
