"""Answers that are not what they say: an error that names the server and what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtimes.remote.http.oip.conftest import Connect
from tests.runtimes.remote.http.oip.fake_server import LONG_S, TRITON, Document, FakeServer, X, Y, answered
from tests.runtimes.remote.http.scripted import reply

from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.oip.http_codec import Question, read_answer, split

Y_RAW = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("head", "raw", "words"),
    [
        ({"id": "another", "outputs": [Y]}, None, "answers request 'another', not"),
        ({"outputs": []}, None, "has no output 'y'"),
        ({"outputs": [Y | {"name": "z"}]}, None, "has no output 'y'; it has 'z'"),
        ({"outputs": [Y, Y]}, None, "'y' twice"),
        ({"outputs": [Y | {"shape": [3]}]}, None, "holds 2 values, not those of"),
        ({"outputs": [Y | {"shape": [-2, -1]}]}, None, "impossible shape"),
        ({"outputs": [Y | {"datatype": "INT64", "data": [1.5, 2]}]}, None, "no INT64 tensor"),
        ({"outputs": [Y | {"datatype": "STRING"}]}, None, "STRING"),
        ({"outputs": [Y | {"data": [1.0, None]}]}, None, "gRPC"),
        ({"outputs": [{"name": "y"}]}, None, "not one of the Open Inference Protocol"),
        ({"outputs": {"y": 1}}, None, "not one of the Open Inference Protocol"),
        ({"predictions": [1]}, None, "not one of the Open Inference Protocol"),
        ({"outputs": [Y_RAW]}, b"1234567", "has 8 bytes, but 7 came"),
        ({"outputs": [Y_RAW]}, b"123456789", "1 bytes too many"),
        ({"outputs": [Y_RAW | {"shape": [3]}]}, b"12345678", "carries 8 bytes"),
        ({"outputs": [Y_RAW | {"parameters": {"binary_data_size": -1}}]}, b"", "has -1 bytes"),
        ({"outputs": [Y_RAW | {"parameters": {"binary_data_size": "8"}}]}, b"12345678", "has '8' bytes"),
    ],
)
def test_a_lie_is_a_bad_answer_that_names_the_server(
    connect: Connect, head: Document, raw: bytes | None, words: str
) -> None:
    server, connection = connect(FakeServer(TRITON, lambda asked: answered(head, raw)))
    with pytest.raises(BadAnswer, match=words) as caught:
        connection.infer({"x": X}, ["y"], LONG_S)
    assert caught.value.message.startswith(f"m at {server.address}: ")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(200, b"<html>welcome</html>"), "is no JSON"),
        (reply(200, b"[]"), "is no JSON object"),
        (reply(200, b""), "is no JSON"),
        (reply(200, b"{}", inference_header_content_length="99"), "has 2 bytes, but its JSON part '99'"),
        (reply(200, b"{}", inference_header_content_length="-1"), "JSON part '-1'"),
        (reply(200, b"{}", inference_header_content_length="9" * 30), "JSON part"),
        (reply(202, b"{}"), "HTTP 202"),
    ],
)
def test_a_success_that_is_none_is_a_bad_answer(connect: Connect, answer: bytes, words: str) -> None:
    with pytest.raises(BadAnswer, match=words) as caught:
        connect(FakeServer(TRITON, lambda asked: answer))[1].infer({"x": X}, ["y"], LONG_S)
    assert caught.value.message.count("m at http://") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["y", "z"]), "datatype": st.sampled_from(["FP32", "INT64", "BOOL", "BYTES", "?"])},
    optional={
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20) | JSON}) | st.none(),
    },
)


@given(st.fixed_dictionaries({"outputs": st.lists(TENSORS, max_size=3) | JSON}), st.binary(max_size=20))
def test_any_answer_is_one_or_a_bad_answer(document: Document, raw: bytes) -> None:
    question = Question(request_id="1", inputs={}, outputs=["y"])
    try:
        answer = read_answer(document, memoryview(raw), question)
    except BadAnswer:
        return
    assert list(answer.outputs) == ["y"]


@given(st.binary(max_size=40), st.none() | st.text(max_size=4) | st.integers(-2, 50).map(str))
def test_any_body_is_split_or_a_bad_answer(body: bytes, length: str | None) -> None:
    try:
        document, rest = split(body, length)
    except BadAnswer:
        return
    assert isinstance(document, dict)
    assert len(rest) <= len(body)
