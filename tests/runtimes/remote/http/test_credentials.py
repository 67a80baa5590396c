"""Credentials go to the server, and stand in no error."""

from __future__ import annotations

import base64
import json
import traceback

import pytest
from tests.runtimes.remote.http.conftest import NewClient, Serve
from tests.runtimes.remote.http.scripted import Asked, reply

from headrace.runtimes.remote.base import Access, BatchTooLarge, Misconfigured, ServerAway
from headrace.runtimes.remote.transport.http_client import succeed

LONG_S = 30.0
SHORT_S = 0.3

#: Of a header; the second is what no error, and nothing that it is chained to, may show.
CREDENTIALS = "Bearer s3cret"
SECRET = "s3cr"


def whole_text(exc: BaseException) -> str:
    """Return an error as a log with its traceback shows it."""
    return "".join(traceback.format_exception(exc))


def test_credentials_go_into_the_header(serve: Serve, client: NewClient) -> None:
    server = serve(lambda asked: reply())
    client(server, Access(authorization=CREDENTIALS)).call("GET", "/", LONG_S)
    assert server.asked[0].headers["authorization"] == CREDENTIALS


#: Answers of which a call makes an error, and a word of it.
BROKEN_ANSWERS: dict[str, tuple[type[Exception], str, bytes]] = {
    "half a head": (ServerAway, "without sending", b"HTTP/1.1 200 OK\r\ncontent-len"),
    "half a body": (ServerAway, "without sending complete", reply(200, b"{}", content_length="5000")),
    "no HTTP": (Misconfigured, "doesn't speak HTTP", b"SSH-2.0-OpenSSH_9.6\r\n\r\n" * 10),
    "compressed": (Misconfigured, "compressed", reply(200, b"\x1f\x8b", content_encoding="gzip")),
    "too large": (BatchTooLarge, "larger than 1000 bytes", reply(200, bytes(2000))),
}


@pytest.mark.parametrize("broken", BROKEN_ANSWERS)
def test_credentials_stand_in_no_error_of_a_broken_answer(serve: Serve, client: NewClient, broken: str) -> None:
    error, words, answer = BROKEN_ANSWERS[broken]
    server = serve(lambda asked: [answer])
    with pytest.raises(error, match=words) as caught:
        client(server, Access(authorization=CREDENTIALS), max_answer_bytes=1000).call("GET", "/", LONG_S)
    assert server.asked[0].headers["authorization"] == CREDENTIALS, "they were on their way"
    assert SECRET not in whole_text(caught.value)


def test_credentials_stand_in_no_error_of_a_call_without_an_answer(serve: Serve, client: NewClient) -> None:
    def stay_silent(asked: Asked) -> None:
        server.stopping.wait(LONG_S)

    server = serve(stay_silent)
    calls = client(server, Access(authorization=CREDENTIALS))
    with pytest.raises(ServerAway, match="did not answer") as late:
        calls.call("GET", "/", SHORT_S)
    server.stop()
    with pytest.raises(ServerAway, match="Connection refused") as refused:
        calls.call("GET", "/", LONG_S)
    assert SECRET not in whole_text(late.value) + whole_text(refused.value)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
        (403, "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
        (407, "name an address that no proxy stands in front of"),
    ],
)
def test_an_error_of_refused_credentials_names_the_remedy_and_not_them(
    serve: Serve, client: NewClient, status: int, remedy: str
) -> None:
    server = serve(lambda asked: reply(status, b'{"error":"who are you?"}'))
    answer = client(server, Access(authorization=CREDENTIALS)).call("GET", "/", LONG_S)
    with pytest.raises(Misconfigured) as caught:
        succeed(answer, "m at http://host")
    assert caught.value.message == f"m at http://host: who are you? (HTTP {status}); {remedy}"
    assert SECRET not in whole_text(caught.value)


BASIC = base64.b64encode(b"ann:s3cret pass").decode()


@pytest.mark.parametrize(
    ("authorization", "words", "shown"),
    [
        (CREDENTIALS, "no user has the token s3cret", "no user has the token [hidden]"),
        (f"Basic {BASIC}", f"wrong: Basic {BASIC}", "wrong: Basic [hidden]"),
        (f"Basic {BASIC}", "ann:s3cret pass is not known", "[hidden] is not known"),
        (f"Basic {BASIC}", "ann has not the password s3cret pass", "ann has not the password [hidden]"),
        ("Bearer a", "a bad token", "a bad token"),
        ("", "a bad token", "a bad token"),
    ],
)
def test_credentials_that_a_server_quotes_are_hidden(
    serve: Serve, client: NewClient, authorization: str, words: str, shown: str
) -> None:
    server = serve(lambda asked: reply(401, json.dumps({"error": words}).encode()))
    answer = client(server, Access(authorization=authorization)).call("GET", "/", LONG_S)
    with pytest.raises(Misconfigured) as caught:
        succeed(answer, "m at http://host")
    assert caught.value.message.startswith(f"m at http://host: {shown} (HTTP 401)")


@pytest.mark.parametrize("secret", [f"{CREDENTIALS}\n", f"{CREDENTIALS}é", f"{CREDENTIALS}\x00"])
def test_credentials_that_no_header_carries_are_not_quoted(serve: Serve, client: NewClient, secret: str) -> None:
    server = serve(lambda asked: reply())
    with pytest.raises(Misconfigured, match="credentials hold characters") as caught:
        client(server, Access(authorization=secret)).call("GET", "/", LONG_S)
    assert SECRET not in whole_text(caught.value)
    assert server.asked == []
