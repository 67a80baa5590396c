"""Whatever messages are compacted to, the same bytes come back; what shares no envelope is left alone."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.compact import compact, expand
from headrace.contracts.ids import new_ids
from headrace.contracts.message import Envelope, Request, RequestHeader, encode_request


def messages(bodies: list[bytes], model: str = "digits") -> tuple[list[str], list[bytes]]:
    envelope = Envelope(Request(id="", model=model, body=b"", header=RequestHeader(rows=1, submitted_at=1.5)))
    ids = new_ids(len(bodies))
    return ids, list(map(envelope.encode, ids, bodies))


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8), st.text(max_size=20))
def test_the_same_bytes_come_back(bodies: list[bytes], note: str) -> None:
    envelope = Envelope(Request(id="", model="digits", body=b"", header=RequestHeader(), note=note))
    ids = new_ids(len(bodies))
    whole = list(map(envelope.encode, ids, bodies))
    compacted = compact(ids, whole)
    assert compacted is not None
    template, found = compacted
    assert found == bodies
    assert expand(template, ids, found) == whole


def test_the_envelope_is_there_once() -> None:
    ids, whole = messages([b"x" * 100] * 64)
    compacted = compact(ids, whole)
    assert compacted is not None
    assert len(compacted[0]) + sum(map(len, compacted[1])) < sum(map(len, whole)) / 5


def test_messages_of_different_envelopes_are_left_alone() -> None:
    (a, b), (one, two) = messages([b"a", b"b"])
    other = encode_request(Request(id=b, model="other", body=b"b", header=RequestHeader()))
    assert compact([a, b], [one, other]) is None
    assert compact([b, a], [one, two]) is None
    assert compact([], []) is None


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=4))
def test_what_is_no_envelope_is_left_alone_or_comes_back(raw: list[bytes]) -> None:
    ids = new_ids(len(raw))
    compacted = compact(ids, raw)
    assert compacted is None or expand(compacted[0], ids, compacted[1]) == raw


def test_a_body_in_another_base64_is_left_alone() -> None:
    (name,), (whole,) = messages([b"a"])
    document = json.loads(whole)
    document["body"] = document["body"].rstrip("=")
    assert compact([name], [json.dumps(document, separators=(",", ":")).encode()]) is None
