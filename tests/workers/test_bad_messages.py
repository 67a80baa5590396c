"""Messages that nobody should send: each ends alone, with a row that says why, and the worker goes on."""

from __future__ import annotations

import base64
import json
import pickle
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import redis
from celery import Celery
from celery.exceptions import NotRegistered
from kombu import compression
from tests.eventually import eventually
from tests.workers.conftest import StartWorker
from tests.workers.predictions import prediction_of

from headrace.contracts import InvalidRequest, Settings, encode_tensors
from headrace.contracts.ids import new_id
from headrace.contracts.message import JSON_CONTENT_TYPE, Request, RequestHeader, encode_request, json_body
from headrace.producers.client import Client
from headrace.queueing import dead_letters

FOUR = np.ones((1, 4), np.float32)


def envelope(
    body: bytes | None = None,
    *,
    content_type: str = "application/x-headrace-tensors",
    expires_at: float | None = None,
    **header: Any,
) -> dict[str, Any]:
    request = Request(
        id=new_id(),
        model="double",
        body=encode_tensors({"x": FOUR}) if body is None else body,
        content_type=content_type,
        header=RequestHeader(**header),
        expires_at=expires_at,
    )
    document: dict[str, Any] = json.loads(encode_request(request))
    return document


def changed(document: dict[str, Any], **headers: object) -> dict[str, Any]:
    document["headers"].update(headers)
    return document


BAD = {
    "pickle": (
        envelope(pickle.dumps(([], {"inputs": {}}, {})), content_type="application/x-python-serialize"),
        "InvalidRequest",
        "refused",
    ),
    "truncated": (envelope(encode_tensors({"x": FOUR})[:-3]), "InvalidRequest", "not application/x-headrace-tensors"),
    "forged": (
        envelope(b"\x81\xa1x\x93\xa4FP32\x92\xce\xff\xff\xff\xff\x04\xc4\x00"),
        "InvalidRequest",
        "truncated or",
    ),
    "json of the wrong form": (envelope(b"[1, 2]", content_type=JSON_CONTENT_TYPE), "InvalidRequest", "kwargs="),
    "json with another argument": (
        envelope(b'[[], {"inputs": {}, "x": 1}, {}]', content_type=JSON_CONTENT_TYPE),
        "InvalidRequest",
        "no arguments besides",
    ),
    "json with a wrong value": (
        envelope(json_body({"x": [[1, 2, 3, "four"]]}), content_type=JSON_CONTENT_TYPE),
        "SignatureMismatch",
        "FP32",
    ),
    "unknown version": (envelope(version="77"), "UnknownModel", "77"),
    "newer protocol": (changed(envelope(), headrace={"v": 99}), "InvalidRequest", "protocol 99"),
    "header of the wrong form": (changed(envelope(), headrace=[1]), "InvalidRequest", "malformed"),
    "expires that is no time": (changed(envelope(), expires="tomorrow"), "InvalidRequest", "ISO 8601"),
    "too large": (envelope(encode_tensors({"x": np.ones((90_000, 4), np.float32)})), "PayloadTooLarge", "split"),
}


def wait_for_rows(url: str, count: int) -> dict[str, tuple[Any, ...]]:
    query = "SELECT coalesce(foreign_id, id::text), state, error->>'type', error->>'message' FROM predictions"
    with psycopg.connect(url, autocommit=True) as connection:
        eventually(lambda: connection.execute(query).rowcount >= count, 60, f"{count} rows")
        return {row[0]: row[1:] for row in connection.execute(query)}


def test_each_bad_message_ends_as_a_failed_row_and_good_ones_go_on(
    settings: Settings, start_worker: StartWorker
) -> None:
    settings = settings.model_copy(update={"max_payload_bytes": 1 << 20})
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        for document, _, _ in BAD.values():
            broker.lpush("infer.double", json.dumps(document))
        with start_worker(HEADRACE_MAX_PAYLOAD_BYTES=str(1 << 20)), Client(settings) as client:
            rows = wait_for_rows(settings.require_database_url(), len(BAD))
            assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].tolist() == [[2, 2, 2, 2]]
        for name, (document, error, words) in BAD.items():
            state, kind, message = rows[document["headers"]["id"]]
            assert (name, state, kind) == (name, "failed", error)
            assert words in message, name
        assert not broker.keys("headrace:inflight:*")


def test_what_is_no_celery_message_goes_to_the_dead_letters(settings: Settings, start_worker: StartWorker) -> None:
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        garbage = [b"\xff\x00 nonsense", b"{}", b'{"body": 1}', json.dumps(envelope()).encode()[:-40]]
        broker.lpush("infer.double", *garbage)
        with start_worker(), Client(settings) as client:
            assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].shape == (1, 4)
        assert len(dead_letters(broker)) == len(garbage)


def test_an_inbox_that_is_no_list_keeps_no_other_request_from_its_answer(
    settings: Settings, start_worker: StartWorker
) -> None:
    document = envelope(inbox="headrace:inbox:occupied")
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        broker.set("headrace:inbox:occupied", "something else")
        broker.lpush("infer.double", json.dumps(document))
        with start_worker(), Client(settings) as client:
            assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].shape == (1, 4)
            assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].shape == (1, 4)
            assert wait_for_rows(settings.require_database_url(), 3)[document["headers"]["id"]][0] == "succeeded"
        assert not broker.keys("headrace:inflight:*")


def test_an_expired_request_never_runs(settings: Settings, start_worker: StartWorker) -> None:
    document = envelope(expires_at=time.time() - 1)
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        broker.lpush("infer.double", json.dumps(document))
        with start_worker():
            rows = wait_for_rows(settings.require_database_url(), 1)
    assert rows[document["headers"]["id"]][:2] == ("expired", "DeadlineExceeded")


@pytest.mark.parametrize("identity", ["order-17", "ÄÖ", "x" * 255, 42])
def test_ids_of_foreign_clients_may_be_any_string(
    settings: Settings, start_worker: StartWorker, identity: int | str
) -> None:
    document = changed(envelope(), id=identity)
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        broker.lpush("infer.double", json.dumps(document))
        with start_worker(), Client(settings) as client:
            rows = wait_for_rows(settings.require_database_url(), 1)
            assert rows[str(identity)][0] == "succeeded"
            assert prediction_of(client, str(identity)).id == str(identity)


def test_a_compressed_body_is_read(settings: Settings, start_worker: StartWorker) -> None:
    import zlib

    document = changed(envelope(), compression="application/x-gzip")
    document["body"] = base64.b64encode(zlib.compress(encode_tensors({"x": FOUR}))).decode()
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        broker.lpush("infer.double", json.dumps(document))
        with start_worker():
            rows = wait_for_rows(settings.require_database_url(), 1)
    assert rows[document["headers"]["id"]][0] == "succeeded"


#: What a plain Celery client may send that no model can answer → the exception that it gets, and its words.
UNANSWERABLE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "protocol 1": ({"protocol": 1}, InvalidRequest, "task_protocol = 2"),
    "a task that is none of the queue's": ({"name": "infer.doubel"}, NotRegistered, "infer.doubel"),
    "a task of another kind": ({"name": "orders.pay"}, NotRegistered, "orders.pay"),
    "a task of protocol 1 that is none of the queue's": ({"name": "orders.pay", "protocol": 1}, NotRegistered, "pay"),
    "a compression that the worker doesn't know": ({"compression": "snappy"}, InvalidRequest, "'snappy' is not one of"),
    "a compression it isn't": ({"claims": "application/x-gzip"}, InvalidRequest, "its body is not application/x-gzip"),
}


@pytest.fixture
def snappy() -> Iterator[None]:
    """A compression that only the sender has registered."""
    compression.register(lambda body: body, lambda body: body, "snappy")
    yield
    registry: Any = compression  # which takes nothing out again by itself
    del registry._encoders["snappy"], registry._decoders["snappy"]


@pytest.mark.usefixtures("snappy")
def test_whoever_sends_what_no_model_can_answer_is_told_so_under_its_id(
    settings: Settings, start_worker: StartWorker
) -> None:
    url = settings.require_broker_url()
    app = Celery("client", broker=url, backend=url, set_as_current=False)
    asked = {}
    for what, (how, _, _) in UNANSWERABLE.items():
        app.conf.task_protocol = how.get("protocol", 2)
        options: dict[str, Any] = {"compression": how["compression"]} if "compression" in how else {}
        if "claims" in how:
            options["headers"] = {"compression": how["claims"]}
        inputs = {"inputs": {"x": FOUR.tolist()}}
        name = how.get("name", "infer.double")
        del app.amqp  # which has cached the protocol
        asked[what] = app.send_task(name, kwargs=inputs, queue="infer.double", **options)
    with start_worker(), Client(settings) as client:
        for what, (_, error, words) in UNANSWERABLE.items():
            with pytest.raises(error, match=re.escape(words)):
                asked[what].get(timeout=30)
            row = prediction_of(client, asked[what].id)
            assert (what, row.id, row.state) == (what, asked[what].id, "failed")
        assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].tolist() == [[2, 2, 2, 2]]
    app.close()


def test_the_id_of_protocol_1_is_read_where_it_is(settings: Settings, start_worker: StartWorker) -> None:
    body = {"id": "the-one", "task": "infer.double", "args": [], "kwargs": {"inputs": {"x": FOUR.tolist()}}}
    document = envelope(json.dumps(body).encode(), content_type=JSON_CONTENT_TYPE)
    document["headers"] = {}
    document["properties"].pop("correlation_id")
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        broker.lpush("infer.double", json.dumps(document))
        with start_worker():
            rows = wait_for_rows(settings.require_database_url(), 1)
    assert rows["the-one"][:2] == ("failed", "InvalidRequest")
