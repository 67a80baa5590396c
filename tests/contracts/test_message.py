"""What comes out of a queue is read exactly, or refused as InvalidRequest; nothing in a header can hurt the store."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import HeadraceError, InvalidRequest, State, encode_tensors
from headrace.contracts.message import (
    JSON_CONTENT_TYPE,
    PROTOCOL,
    Reply,
    Request,
    RequestHeader,
    decode_header,
    decode_inputs,
    decode_replies,
    encode_replies,
    encode_request,
    iso_time,
    json_body,
)
from headrace.contracts.tensors.codec import CONTENT_TYPE, as_array
from headrace.queueing import keys

END = b',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


def call(inputs: bytes) -> bytes:
    return b'[[],{"inputs":' + inputs + b"}" + END


# Bodies.


def test_tensors_and_json_are_both_read() -> None:
    arrays = {"x": np.arange(3, dtype=np.float32)}
    decoded = decode_inputs(encode_tensors(arrays), CONTENT_TYPE)
    assert np.array_equal(decoded["x"], arrays["x"])  # type: ignore[arg-type]
    assert decode_inputs(json_body({"x": [1, 2.5]}), JSON_CONTENT_TYPE) == {"x": [1, 2.5]}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/x-python-serialize",
        "application/x-yaml",
        "application/json; charset=utf-8",
        "text/plain",
        "x" * 100_000,
    ],
)
def test_every_other_content_type_is_refused_pickle_above_all(content_type: str | None) -> None:
    with pytest.raises(InvalidRequest, match="is refused") as caught:
        decode_inputs(b"\x80\x04N.", content_type)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"null",
        b"1",
        b'"text"',
        b"{}",
        b"[]",
        b"[[]]",
        b"[[],{}]",
        b"[[],null]",
        b"[[],[]]",
        b'[[],{"inputs":null}]',
        b'[[],{"inputs":[1]}]',
        b'[[],{"inputs":"x"}]',
        b'[[1],{"inputs":{}}]',
        b'[{"inputs":{}},{"inputs":{}}]',
        b'[[],{"inputs":{},"model":"other"}]',
        b'{"inputs":{"x":1}}',
        call(b'{"x":nan}'),
        call(b'{"x":+Infinity}'),
        call(b'{"x":1e400}'),
        call(b'{"x":' + b"9" * 5000 + b"}"),
        call(b'{"x":01}'),
        call(b"{'x':1}"),
        call(b'{"x":1,}'),
        call(b'{"x":"\xff"}'),
        call(b'{"x":"\\ud800"}'),
        call(b'{"x":1}') + b"x",
        b"[" * 1_000_000,
        b'[[],{"inputs":' + b'{"a":' * 200_000,
        call(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        b"\x00",
        b"\xef\xbb\xbf" + call(b"{}"),
    ],
    ids=range(33),
)
def test_json_of_the_wrong_form_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_inputs(body, JSON_CONTENT_TYPE)


@given(st.binary(max_size=100))
def test_noise_as_json_is_an_invalid_request(noise: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        decode_inputs(noise, JSON_CONTENT_TYPE)


@pytest.mark.parametrize("name", ["callbacks", "errbacks", "chain", "chord"])
def test_a_task_to_run_afterwards_is_refused_rather_than_dropped(name: str) -> None:
    body = json.dumps([[], {"inputs": {"x": 1}}, {name: [{"task": "next"}]}]).encode()
    with pytest.raises(InvalidRequest, match="callbacks"):
        decode_inputs(body, JSON_CONTENT_TYPE)


def test_of_a_repeated_key_the_last_counts_as_in_every_python_json_reader() -> None:
    assert decode_inputs(call(b'{"x":1,"x":2}'), JSON_CONTENT_TYPE) == {"x": 2}


json_values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_what_json_can_carry_comes_back(inputs: dict[str, object]) -> None:
    assert decode_inputs(json_body(inputs), JSON_CONTENT_TYPE) == inputs
    assert json.loads(json_body(inputs))[1] == {"inputs": inputs}


@pytest.mark.parametrize("text", ["null", 'a "null" b', "\\", '\\"', 'null"', "\\\\null"])
def test_the_word_null_in_a_string_is_no_null(text: str) -> None:
    assert decode_inputs(json_body({text: [text]}), JSON_CONTENT_TYPE) == {text: [text]}


def test_none_is_refused_where_it_would_silently_become_null() -> None:
    for inputs in ({"x": None}, {"x": [[1.0, None]]}, {"x": ["text", None]}, {"x": [float("nan"), None]}):
        with pytest.raises(InvalidRequest, match="None"):
            json_body(inputs)


# NaN and infinity.

ODD = {"x": [[1.5, float("nan")], [float("inf"), -float("inf")]], "t": ["NaN", "null"]}


@pytest.mark.parametrize("write", [json_body, lambda inputs: json.dumps([[], {"inputs": inputs}, {}]).encode()])
def test_nan_and_infinity_go_as_the_literals_of_python_and_celery(write: Callable[[dict[str, Any]], bytes]) -> None:
    body = write(ODD)
    assert b"NaN" in body
    assert b"-Infinity" in body
    decoded = decode_inputs(body, JSON_CONTENT_TYPE)
    assert repr(decoded) == repr(ODD)


@pytest.mark.parametrize(
    "written",
    [
        b"NaN",
        b"[NaN, 1]",
        b"[1,NaN]",
        b"[\n\tNaN\r\n]",
        b"[-Infinity,Infinity]",
        b'["NaN",NaN,"\\"NaN"]',
        b"[[-1.5e-3,NaN]]",
        b'["1e400000000001",NaN]',
        b'{"NaN":NaN}',
    ],
)
def test_literals_are_read_wherever_a_number_may_stand(written: bytes) -> None:
    decoded = decode_inputs(call(b'{"x":' + written + b"}"), JSON_CONTENT_TYPE)
    assert repr(decoded["x"]) == repr(json.loads(written))


@pytest.mark.parametrize(
    "odd",
    [
        b'{NaN:1,"x":NaN}',
        b'{"x":NaN,NaN:1}',
        b'{"x":NaN,"y":1e400}',
        b'{"x":[NaN,1e400000000001]}',
        b'{"x":[1e400000000001,NaN]}',
        b'{"x":[NaN,1e400000000002,1e400000000003]}',
        b'{"x":NaN,"y":' + b"9" * 5000 + b"}",
        b'{"x":NaN,"y":01}',
        b'{"x":[NaN,]}',
        b'{"x":[NaN NaN]}',
        b'{"x":[NaNNaN]}',
        b'{"x":[-NaN]}',
        b'{"x":[1NaN]}',
        b'{"x":[NaN1]}',
        b'{"x":["a"NaN]}',
        b'{"x":[NaN"a"]}',
        b'{"x":[- Infinity,NaN]}',
        b'{"x":[NaN.0]}',
        b"{'x':NaN}",
        b'{"x":[NaN,nan]}',
        b'{"x":[NaN,"\xff"]}',
        b'{"x":[NaN,"\\ud800"]}',
        b'{"x":[NaN,"\x00"]}',
        b'{"x":[NaN /*NaN*/]}',
        b'{"x":[\x0bNaN]}',
        b'{"x":NaN,"y":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":[NaN,"' + b'\\"' * 2_000_000,
        b'{"x":' + b"[" * 1_000_000 + b"NaN",
    ],
    ids=range(28),
)
def test_beside_nan_nothing_else_becomes_json(odd: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not JSON"):
        decode_inputs(call(odd), JSON_CONTENT_TYPE)


@given(st.text(st.sampled_from(list('NaInfity-,:[]{}"\\ 1e')), max_size=20))
def test_what_reads_with_literals_is_what_python_reads(text: str) -> None:
    try:
        found = decode_inputs(call(b'{"x":' + text.encode() + b"}"), JSON_CONTENT_TYPE)
    except InvalidRequest:
        return
    assert repr(found) == repr(json.loads('{"x":' + text + "}"))


numbers = st.floats() | st.integers(-(2**63), 2**64 - 1)


@given(st.dictionaries(st.text(), st.recursive(numbers | st.text(), lambda inner: st.lists(inner, max_size=4))))
def test_any_number_comes_back_from_our_json_and_from_celerys(inputs: dict[str, object]) -> None:
    for body in (json_body(inputs), json.dumps([[], {"inputs": inputs}, {}]).encode()):
        assert repr(decode_inputs(body, JSON_CONTENT_TYPE)) == repr(inputs)


@pytest.mark.parametrize("value", [None, "null"])
def test_null_beside_nan_stays_null(value: object) -> None:
    decoded = decode_inputs(call(b'{"x":[NaN,' + json.dumps(value).encode() + b"]}"), JSON_CONTENT_TYPE)
    with pytest.raises(InvalidRequest, match="'x'"):
        as_array(decoded["x"], "FP32", "x")


def test_what_json_cannot_carry_is_an_invalid_request() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (np.zeros(2), object(), circle, {(1, 2): 3}, "\ud800", 1j):
        with pytest.raises(InvalidRequest):
            json_body({"x": value})


# Headers.


def test_a_foreign_client_has_no_header() -> None:
    assert decode_header(None) == RequestHeader()


headers = st.builds(
    RequestHeader,
    version=st.from_regex(r"[0-9a-z.]{0,20}", fullmatch=True),
    rows=st.integers(0, 2**31 - 1),
    inbox=st.one_of(st.just(""), st.uuids().map(lambda client: keys.inbox_name(str(client)))),
    submitted_at=st.floats(0, 253_402_300_799),
    job_id=st.uuids().map(str),
    row_index=st.integers(-1, 2**63 - 1),
    tenant=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200),
    trace=st.from_regex(r"[0-9a-f-]{0,55}", fullmatch=True),
)


@given(headers)
def test_a_header_survives_the_envelope(header: RequestHeader) -> None:
    envelope = encode_request(Request(id="id", model="digits", body=b"body", header=header))
    assert decode_header(json.loads(envelope)["headers"]["headrace"]) == header


@pytest.mark.parametrize(
    "raw",
    [
        1,
        [],
        "text",
        {1: 2},
        {"v": "1"},
        {"v": None},
        {"v": 1.5},
        {"v": PROTOCOL + 1},
        {"v": 10**30},
        {"rows": "1"},
        {"rows": -1},
        {"rows": 2**31},
        {"rows": 10**30},
        {"row_index": -2},
        {"row_index": 2**63},
        {"submitted_at": float("nan")},
        {"submitted_at": float("inf")},
        {"submitted_at": -1.0},
        {"submitted_at": 1e300},
        {"submitted_at": "2026-01-01"},
        {"version": "1\0"},
        {"job_id": "NUL \0"},
        {"job_id": "\ud800"},
        {"job_id": "x" * 201},
        {"job_id": None},
        {"tenant": "x\0"},
        {"trace": "\udfff"},
        {"trace": "x" * 1_000_000},
    ],
    ids=range(28),
)
def test_a_header_that_a_row_could_not_hold_is_an_invalid_request(raw: object) -> None:
    with pytest.raises(InvalidRequest):
        decode_header(raw)


@pytest.mark.parametrize(
    "inbox",
    [
        "celery",
        "infer.digits",
        "headrace:leases",
        "headrace:inbox:",
        "headrace:inbox:a b",
        "headrace:inbox:a\nb",
        " ",
        1,
    ],
)
def test_a_header_can_name_no_other_key_than_an_inbox(inbox: object) -> None:
    with pytest.raises(InvalidRequest, match="inbox"):
        decode_header({"inbox": inbox})


def test_the_header_of_a_later_release_may_have_more_fields() -> None:
    assert decode_header({"v": PROTOCOL, "colour": "green"}) == RequestHeader()


json_anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)
fields = st.dictionaries(st.sampled_from(RequestHeader.__struct_fields__), json_anything)


@given(st.one_of(json_anything, fields))
def test_any_json_is_a_header_or_an_invalid_request(raw: object) -> None:
    with contextlib.suppress(InvalidRequest):
        decode_header(raw)


# Envelopes.


def test_an_envelope_is_what_celery_writes() -> None:
    request = Request(
        id="id", model="digits", body=b"\0\xff", header=RequestHeader(), priority=7, expires_at=1.5, note="n"
    )
    envelope = json.loads(encode_request(request))
    assert base64.b64decode(envelope["body"]) == b"\0\xff"
    assert envelope["content-type"] == CONTENT_TYPE
    assert envelope["headers"]["task"] == "infer.digits"
    assert envelope["headers"]["expires"] == "1970-01-01T00:00:01.500000+00:00"
    assert envelope["properties"]["priority"] == 7
    assert envelope["properties"]["delivery_info"] == {"exchange": "", "routing_key": "infer.digits"}


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e20, -1e20])
def test_an_impossible_deadline_is_an_invalid_request(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="deadline"):
        iso_time(seconds)
    with pytest.raises(HeadraceError):
        encode_request(Request(id="i", model="m", body=b"", header=RequestHeader(), expires_at=seconds))


# Replies.

replies = st.builds(
    Reply,
    id=st.uuids().map(str),
    state=st.sampled_from(list(map(str, State))),
    outputs=st.binary(max_size=50),
    stored=st.booleans(),
    error_type=st.text(max_size=10),
    error_message=st.text(max_size=50),
)


@given(st.lists(replies, max_size=5), st.data())
def test_replies_survive_and_cut_ones_are_refused(batch: list[Reply], data: st.DataObject) -> None:
    raw = encode_replies(batch)
    assert decode_replies(raw) == batch
    with pytest.raises(InvalidRequest):
        decode_replies(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x91\x90",
        b"\x91\x92\xa1\xff\xa1s",
        b"\x91" * 100_000,
        msgspec.msgpack.encode([[1, 2]]),
        b"\xdd\xff\xff\xff\xff",
    ],
    ids=range(6),
)
def test_forged_replies_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_replies(raw)


def test_a_reply_of_a_later_release_may_have_more_fields() -> None:
    raw = msgspec.msgpack.encode([["id", "succeeded", b"", False, "", "", "more"]])
    assert decode_replies(raw) == [Reply(id="id", state="succeeded")]
