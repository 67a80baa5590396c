"""Messages that killed a worker, one after the other, when they were found."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import redis
from tests.fuzz import seeds
from tests.fuzz.targets import SIGNATURES
from tests.fuzz.worker import FuzzedWorker

from headrace.queueing import queue_stats


def message(**changes: Any) -> bytes:
    """A good message with other headers; None removes one."""
    document = json.loads(seeds.envelopes()[0])
    document["headers"].update(changes)
    return json.dumps(document).encode()


def nested(name: str, depth: int) -> bytes:
    raw = message(**{name: "HERE"})
    return raw.replace(b'"HERE"', b'{"x":' * depth + b"1" + b"}" * depth)


KILLERS = {
    "a task that is a list": [message(task=[])],
    "a task that is an object": [message(task={})],
    "a task that no worker has": [message(task="tasks.add")],
    "a task of another model": [message(task="infer.other")],
    "the first protocol with a list as its task": [
        json.dumps(
            {
                "body": base64.b64encode(b'{"task": [1], "id": "x", "args": [], "kwargs": {}}').decode(),
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": {},
                "properties": {"body_encoding": "base64"},
            }
        ).encode()
    ],
    "our mark of a long message, as text": [message(headrace_oversize="x")],
    "a decimal that is none": [message(origin={"__type__": "decimal", "__value__": "x"})],
    "a UUID that is a number": [message(origin={"__type__": "uuid", "__value__": {"hex": 5}})],
    "bytes that are a number": [message(origin={"__type__": "bytes", "__value__": 5})],
    "an id of lone surrogates": [message(id="\ud800"), message(id="\ud800", headrace=None)],
    "a compression that nobody knows": [message(compression="x")],
    **{
        f"a deep {name}": [nested(name, depth) for depth in (300, 900, 960, 970, 980)]
        for name in ("id", "expires", "eta", "argsrepr")
    },
    "two deep headers": [nested("headrace", depth) for depth in (900, 900, 940, 940, 960, 960, 970, 970, 980, 980)],
}


@pytest.mark.parametrize("name", KILLERS)
def test_no_message_kills_a_worker(name: str) -> None:
    worker = FuzzedWorker(SIGNATURES[0])
    for raw in KILLERS[name]:
        worker.deliver(raw)


def test_an_age_beyond_all_numbers_is_no_age(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as broker:
        broker.lpush("infer.double", message(headrace={"submitted_at": 10**400}))
        (found,) = queue_stats(broker, ["infer.double"])
    assert (found.waiting, found.oldest_age_s) == (1, None)
