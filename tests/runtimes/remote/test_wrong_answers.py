"""Every wrong answer of a server is an error by name, whatever is wrong with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.runtimes.remote.wrong_answers import GRPC, HTTP, HttpAnswer, json_answer, message

from headrace.contracts import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import BadAnswer
from headrace.runtimes.remote.endpoints.answer_check import checked
from headrace.runtimes.remote.oip import http_codec, messages
from headrace.runtimes.remote.oip.http_codec import Question

SPECS = (TensorSpec(name="y", datatype="FP32", shape=(1,)),)
Y = np.arange(1, 5, dtype=np.float32)[:, None]


def over_http(answer: HttpAnswer) -> Tensors:
    document, binary = http_codec.split(answer.body, answer.json_length)
    question = Question(request_id="1", inputs={}, outputs=["y"])
    return checked(http_codec.read_answer(document, binary, question).outputs, SPECS, len(Y), "refuse")


def over_grpc(answer: bytes) -> Tensors:
    return checked(messages.read_answer(answer, "1").outputs, SPECS, len(Y), "refuse")


@pytest.mark.parametrize("wrong", HTTP)
def test_a_wrong_answer_over_http_is_an_error_by_name(wrong: str) -> None:
    with pytest.raises(BadAnswer, match=r"\w"):
        over_http(HTTP[wrong](Y))


@pytest.mark.parametrize("wrong", GRPC)
def test_a_wrong_answer_over_grpc_is_an_error_by_name(wrong: str) -> None:
    with pytest.raises(BadAnswer, match=r"\w"):
        over_grpc(GRPC[wrong](Y))


def test_the_right_answers_that_they_are_made_from_are_read() -> None:
    assert np.array_equal(over_http(HttpAnswer(json.dumps(json_answer(Y)).encode()))["y"], Y)
    assert np.array_equal(over_grpc(message(Y).SerializeToString())["y"], Y)
