"""Reading kombu's envelopes, whole and from their ends."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps

from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.queueing.channel.envelope import NotAnEnvelope, read_envelope, read_tail

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
envelopes = st.fixed_dictionaries(
    {
        "body": st.text("abcdefghijklmnop/+=", max_size=200),
        "content-encoding": st.sampled_from(["utf-8", "binary", None]),
        "content-type": st.sampled_from(["application/json", None]),
        "headers": st.dictionaries(st.text(max_size=9), plain, max_size=4),
        "properties": st.dictionaries(st.text(max_size=9), plain, max_size=4),
    }
)


@given(envelopes)
def test_what_kombu_writes_is_read(message: dict[str, Any]) -> None:
    envelope = read_envelope(dumps(message).encode())
    assert envelope.body == message["body"]
    assert envelope.headers == message["headers"]
    assert envelope.properties == message["properties"]
    assert (envelope.content_type, envelope.content_encoding) == (message["content-type"], message["content-encoding"])


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(NotAnEnvelope, match=r"\A.*\Z"):
        read_envelope(raw)


@given(envelopes, st.integers(0, 200))
def test_all_but_the_body_is_recovered_from_an_end(message: dict[str, Any], cut: int) -> None:
    message = {"body": "A" * 200} | {key: value for key, value in message.items() if key != "body"}
    envelope = read_tail(dumps(message).encode()[cut:])
    assert envelope.headers == message["headers"]
    assert envelope.properties == message["properties"]
    assert envelope.content_type == message["content-type"]


def test_our_own_requests_are_recovered_from_their_ends() -> None:
    request = Request(id="42", model="digits", body=b"x" * 9000, header=RequestHeader(submitted_at=7.5))
    headers = read_tail(encode_request(request)[-2000:]).headers
    assert headers is not None
    assert headers["id"] == "42"
    assert headers["headrace"]["submitted_at"] == 7.5


def test_what_is_not_json_proper_but_kombu_writes_is_read() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5)
    raw = dumps({"properties": {}, "headers": {"eta": moment, "score": float("nan")}}).encode()
    headers = read_envelope(raw).headers
    assert headers is not None
    assert headers["eta"] == moment
    assert headers["score"] != headers["score"]
    assert read_envelope(b'{"properties": {"x": NaN}}').headers is None


@pytest.mark.parametrize("message", [[], 1, {}, {"properties": 3}, {"properties": {}, "body": 5}, {"headers": {}}])
def test_other_json_is_refused(message: Any) -> None:
    with pytest.raises(NotAnEnvelope):
        read_envelope(json.dumps(message).encode())


def test_an_end_without_headers_is_refused() -> None:
    with pytest.raises(NotAnEnvelope):
        read_tail(b"x" * 8192)
