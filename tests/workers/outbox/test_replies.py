"""What plain Celery clients read out of the Redis result backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from celery import Celery
from tests.workers.example_request import made_request

from headrace.contracts import InputRefused, Tensors, encode_tensors
from headrace.contracts.message import Reply
from headrace.contracts.tensors.codec import can_be_json, tensors_to_json
from headrace.workers.outbox.replies import OutgoingReplies, celery_failure, celery_result_key, celery_success
from headrace.workers.request import InferenceRequest


@pytest.fixture
def app(broker_url: str) -> Iterator[Celery]:
    app = Celery("plain", broker=broker_url, backend=broker_url, set_as_current=False)
    yield app
    app.close()


def read(app: Celery, url: str, asked: InferenceRequest, meta: bytes) -> Any:
    """Store an answer as the outbox does, and read it as Celery does."""
    answers = OutgoingReplies.empty()
    answers.add(asked, Reply(id=asked.id, state="succeeded"), meta)
    with redis.Redis.from_url(url) as client:
        for key, value in answers.celery.items():
            client.set(celery_result_key("", key), value)
    return app.AsyncResult(asked.id).get(timeout=10)


@pytest.mark.parametrize("scores", [[0.1, np.nan, np.inf, -np.inf], [0.1, 1.0, 2.0, 3.0]])
def test_async_result_gives_nan_as_a_float_and_labels_as_they_are(
    app: Celery, broker_url: str, scores: list[float]
) -> None:
    tensors: Tensors = {
        "scores": np.array([scores], np.float32),
        "label": np.array([2**53 + 1]),
        "a": np.array([True]),
        "name": np.array(["né, NaN".encode()], dtype=object),
    }
    asked = made_request({}, 1)
    text = tensors_to_json(tensors) if can_be_json(tensors) else None
    found = read(app, broker_url, asked, celery_success(asked, encode_tensors(tensors), text))
    assert repr(found) == repr(
        {"scores": [list(map(float, scores))], "label": [9007199254740993], "a": [True], "name": ["né, NaN"]}
    )


def test_the_class_of_an_error_reaches_a_plain_celery_client(app: Celery, broker_url: str) -> None:
    asked = made_request({}, 1)
    with pytest.raises(InputRefused, match="Add node 'a'"):
        read(
            app, broker_url, asked, celery_failure(asked, InputRefused("the model can't run this input: Add node 'a'"))
        )
