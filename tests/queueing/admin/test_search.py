"""Where a request can be: a search finds it in every place, whatever the message looks like, and in bounded pieces."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from tests.queueing.commands import run_command

from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.queueing import ClaimingConsumer, connect, headrace_url
from headrace.queueing.admin import search
from headrace.queueing.admin.search import search_steps
from headrace.queueing.connection.connect import run_commands
from headrace.queueing.keys import Keys, keys_of
from headrace.queueing.lua.limits import PIECE_BYTES, PIECE_MESSAGES
from headrace.queueing.submission import Submitter

QUEUE = "infer.digits"


@pytest.fixture(params=["", "shop:"])
def broker(broker_url: str, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(broker_url, prefix=request.param) as client:
        yield client


def message(name: str, body: bytes = b"body") -> bytes:
    return encode_request(Request(id=name, model="digits", body=body, header=RequestHeader()))


def put(broker: redis.Redis, *names: str, priority: int = 0, queue: str = QUEUE) -> None:
    Submitter(broker).submit(queue, priority, [message(name) for name in names])


def missing(broker: redis.Redis, *names: str, queue: str = QUEUE) -> set[str]:
    return search.search(broker, {queue: names}, pause=lambda _: None)


def test_what_waits_is_found_at_every_priority(broker: redis.Redis) -> None:
    for priority in range(10):
        put(broker, f"at {priority}", priority=priority)
    assert missing(broker, *(f"at {priority}" for priority in range(10)), "lost") == {"lost"}


def test_what_is_held_delayed_or_dead_is_found(broker: redis.Redis) -> None:
    consumer = ClaimingConsumer(broker, lease_s=60)
    put(broker, "held", "delayed", "dead", "acknowledged")
    held, delayed, dead, acked = consumer.claim({QUEUE: 10})
    run_commands(broker, [consumer.defer_command(delayed.tag, 60)])
    consumer.dead_letter(dead.tag, "no reason")
    consumer.ack([acked.tag])
    assert missing(broker, "held", "delayed", "dead", "acknowledged") == {"acknowledged"}
    assert consumer.holds(held.tag)


def test_another_queue_is_not_looked_at(broker: redis.Redis) -> None:
    put(broker, "elsewhere", queue="infer.other")
    assert missing(broker, "elsewhere") == {"elsewhere"}
    assert missing(broker, "elsewhere", queue="infer.other") == set()


@pytest.mark.parametrize(
    "name",
    ['a "quoted" id', "back\\slash\\", "ünïcode 漢字", "tab\tand\nnewline", '","reply_to"', "x" * 255, "漢" * 255],
)
def test_ids_of_any_kind_are_found_also_in_messages_of_kombu(broker: redis.Redis, name: str) -> None:
    put(broker, name)
    assert missing(broker, name, name + "'s twin") == {name + "'s twin"}
    key = keys_of(broker).queue_list(QUEUE, 0)
    raw = broker.rpop(key)
    assert isinstance(raw, bytes)
    # As kombu writes back what it restores.
    broker.lpush(key, json.dumps(json.loads(raw)))
    assert missing(broker, name, name + "'s twin") == {name + "'s twin"}


def test_what_celery_sent_is_found(broker_url: str) -> None:
    for url in (broker_url, headrace_url(broker_url)):
        with Celery(broker=url) as app, connect(broker_url) as broker:
            sent = app.send_task(QUEUE, queue=QUEUE, kwargs={"inputs": {"x": [1]}})
            assert missing(broker, str(sent.id), "lost") == {"lost"}


def test_an_id_that_only_stands_in_a_body_or_a_header_is_not_found(broker: redis.Redis) -> None:
    document = json.loads(message("real"))
    document["headers"]["correlation_id"] = "fake"
    document["body"] = json.dumps({"correlation_id": "fake", "reply_to": ""})
    broker.lpush(keys_of(broker).queue_list(QUEUE, 0), json.dumps(document))
    assert missing(broker, "real", "fake") == {"fake"}


def test_what_is_no_envelope_is_passed_over(broker: redis.Redis) -> None:
    key = keys_of(broker).queue_list(QUEUE, 0)
    broker.lpush(key, b"", b"no envelope", b'"correlation_id":', b"\xff\xfe" * 9)
    put(broker, "here")
    assert missing(broker, "here", "lost") == {"lost"}


def run(broker: redis.Redis, *names: str) -> Iterator[int]:
    """Search, and give the messages that each piece read."""
    steps = search_steps(keys_of(broker), {QUEUE: names})
    command = next(steps)
    while True:
        answer = run_command(broker, *command)
        if command[0] == "EVAL":
            yield len(answer) - 1
        try:
            command = steps.send(answer)
        except StopIteration:
            return


def test_a_piece_is_bounded_in_messages_and_bytes(broker: redis.Redis) -> None:
    put(broker, *map(str, range(2 * PIECE_MESSAGES + 1)))
    pieces = list(run(broker, "lost"))
    assert max(pieces) <= PIECE_MESSAGES
    assert sum(pieces) == 2 * PIECE_MESSAGES + 1
    large = message("large", b"\0" * (PIECE_BYTES // 2))
    broker.lpush(keys_of(broker).queue_list(QUEUE, 9), *[large] * 8)
    assert len([piece for piece in run(broker, "lost") if piece == 2]) == 4


def test_a_search_ends_when_all_is_found(broker: redis.Redis) -> None:
    put(broker, *map(str, range(4 * PIECE_MESSAGES)))
    newest = str(4 * PIECE_MESSAGES - 1)
    assert sum(run(broker, newest)) <= PIECE_MESSAGES


def test_messages_that_come_and_go_meanwhile_hide_nothing(broker: redis.Redis) -> None:
    """Before each piece of a search newer requests arrive and the oldest are claimed."""
    names = [str(number) for number in range(3 * PIECE_MESSAGES)]
    put(broker, *names)
    consumer = ClaimingConsumer(broker, lease_s=60)
    steps = search_steps(keys_of(broker), {QUEUE: names})
    command = next(steps)
    found: list[set[str]] = []
    while not found:
        put(broker, *(uuid.uuid4().hex for _ in range(70)))
        consumer.claim({QUEUE: 90})
        try:
            command = steps.send(run_command(broker, *command))
        except StopIteration as end:
            found.append(end.value)
    assert found == [set()]


def test_the_search_of_nothing_asks_nothing() -> None:
    assert not list(search_steps(Keys(), {}))[4:]
