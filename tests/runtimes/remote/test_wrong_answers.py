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


#: What the error of each wrong answer says: of the output `y`, or of the answer where nothing in it can be read.
SHAPED = {
    "too-few": "3 rows of 'y' for 4 rows",
    "too-many": "8 rows of 'y' for 4 rows",
    "no-rows": "0 rows of 'y' for 4 rows",
    "no-outputs": "answer has no output 'y'",
    "other-name": "has no output 'y'; it(s outputs are:| has) 'z'",
    "twice": "has the output 'y' twice",
    "fp64": "'y' as FP64, but model.toml says FP32",
    "no-such-datatype": "output 'y' has the unknown datatype 'FP7'",
    "wider": r"'y' in the shape \[4, 2\] for 4 rows, but model.toml says y FP32 \[rows, 1\]",
    "shape-negative": r"output 'y' has the impossible shape \[-4, -1\]",
    "shape-minus-one": r"output 'y' has the impossible shape \[-1, 2\]",
    "nan": "NaN or infinity in 'y', which the package refuses",
}
NO_MESSAGE = "answer is not one of the Open Inference Protocol: Expected "
NO_TENSOR = "output 'y' is no FP32 tensor: it "
HTTP_WORDS = {
    **SHAPED,
    "no-outputs-key": "not one of the Open Inference Protocol: Object missing required field `outputs`",
    "outputs-null": NO_MESSAGE + r"`array`, got `null` - at `\$\.outputs`",
    "outputs-object": NO_MESSAGE + r"`array`, got `object` - at `\$\.outputs`",
    "name-null": NO_MESSAGE + r".*outputs\[0\]\.name",
    "datatype-null": NO_MESSAGE + r".*outputs\[0\]\.datatype",
    "int64": "'y' as INT64, but model.toml says FP32",
    "bytes": "'y' as BYTES, but model.toml says FP32",
    "rank-3": r"'y' in the shape \[4, 1, 2\] for 4 rows",
    "shape-larger": r"output 'y' holds 4 values, not those of \[4, 2\]",
    "shape-smaller": r"output 'y' holds 5 values, not those of \[4, 1\]",
    "shape-huge": "output 'y' has the impossible shape",
    "shape-float": NO_MESSAGE + r"`int`, got `float` - at `\$\.outputs\[0\]\.shape\[0\]`",
    "shape-text": NO_MESSAGE + r"`array`, got `str` - at `\$\.outputs\[0\]\.shape`",
    "no-shape": NO_MESSAGE + r"`array`, got `null` - at `\$\.outputs\[0\]\.shape`",
    "data-null": NO_TENSOR + ".*NoneType",
    "data-text": NO_TENSOR + "must be FP32, but holds text",
    "data-objects": NO_TENSOR + ".*type dict",
    "data-ragged": NO_TENSOR + "is not a regular array",
    "data-nulls": NO_TENSOR + ".*NaN and infinity as null: reach this one over gRPC",
    "infinite": "NaN or infinity in 'y', which the package refuses",
    **dict.fromkeys(("json-list", "json-null", "json-number"), r"answer is no JSON object: (\[\]|None|7)$"),
    **dict.fromkeys(
        ("overflow", "html", "empty", "half-json", "more-json", "json-deep", "json-deep-object", "not-utf8", "utf16"),
        r"answer is no JSON \(.+\); it begins with '",
    ),
    "long-number": r"answer is no JSON \(.+\); it begins with '",
    "header-length-zero": r"answer is no JSON \(.+\); it begins with ''",
    "header-length-beyond": "has 140 bytes, but its JSON part '99999'",
    "header-length-negative": "has 140 bytes, but its JSON part '-1'",
    "header-length-text": "has 140 bytes, but its JSON part 'many'",
    "header-length-huge": "has 140 bytes, but its JSON part '9{90,}",
    "binary-size-lie": r"output 'y' carries 3 bytes, but FP32 of shape \[4, 1\] needs 16",
    "binary-size-negative": "output 'y' has -4 bytes, but 16 came",
    "binary-size-huge": "output 'y' has 1000000000000000 bytes, but 16 came",
}
GRPC_WORDS = {
    **SHAPED,
    "empty-message": "has no output 'y'; its outputs are: none",
    "no-name": "has no output 'y'; its outputs are: ''",
    "int32": "'y' as INT32, but model.toml says FP32",
    "bytes": "output 'y' is cut off in element 0",
    "no-datatype": "output 'y' has the unknown datatype ''",
    "shape-larger": r"output 'y' carries 16 bytes, but FP32 of shape \[4, 2\] needs 32",
    "shape-huge": "output 'y' has the impossible shape",
    "raw-too-short": "output 'y' carries 15 bytes, but .* needs 16",
    "raw-too-long": "output 'y' carries 20 bytes, but .* needs 16",
    "raw-empty": "output 'y' carries 0 bytes, but .* needs 16",
    "raw-two": "answer has 1 outputs, but the contents of 2",
    "typed-nothing": r"output 'y' of shape \[4, 1\] has 0 values",
    "typed-too-few": r"output 'y' of shape \[4, 1\] has 3 values",
    "typed-too-many": r"output 'y' of shape \[4, 1\] has 5 values",
    "typed-other": r"output 'y' of shape \[4, 1\] has 0 values",
    "garbage": "answer is no ModelInferResponse",
    "truncated": "answer is no ModelInferResponse",
}


def test_every_wrong_answer_has_words() -> None:
    assert set(HTTP_WORDS) == set(HTTP)
    assert set(GRPC_WORDS) == set(GRPC)


@pytest.mark.parametrize("wrong", HTTP)
def test_a_wrong_answer_over_http_is_an_error_by_name(wrong: str) -> None:
    with pytest.raises(BadAnswer, match=HTTP_WORDS[wrong]):
        over_http(HTTP[wrong](Y))


@pytest.mark.parametrize("wrong", GRPC)
def test_a_wrong_answer_over_grpc_is_an_error_by_name(wrong: str) -> None:
    with pytest.raises(BadAnswer, match=GRPC_WORDS[wrong]):
        over_grpc(GRPC[wrong](Y))


def test_the_right_answers_that_they_are_made_from_are_read() -> None:
    assert np.array_equal(over_http(HttpAnswer(json.dumps(json_answer(Y)).encode()))["y"], Y)
    assert np.array_equal(over_grpc(message(Y).SerializeToString())["y"], Y)
