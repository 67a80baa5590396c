"""Whether a queue has a consumer is known to whoever asks, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio
from kombu import Connection, Queue
from tests.eventually import eventually
from tests.queueing.commands import score_of

from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.contracts.problem import Problem
from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect, headrace_url, keys
from headrace.queueing.consumer.serving import (
    SERVED_TTL_S,
    Served,
    is_served,
    is_served_async,
    problems_in,
    queues_consumed,
    served,
    served_async,
    served_on,
)

QUEUE = "infer.digits"

#: A consumer that says when it is known, and stays.
SERVING = """
import sys, threading
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect
consumer = ClaimingConsumer(connect(sys.argv[1]), lease_s=float(sys.argv[2]))
consumer.queues.add("infer.digits")
keeper = LeaseKeeper(consumer, connect(sys.argv[1]))
keeper.start()
print("serving")
threading.Event().wait()
"""


def test_queues_with_consumers_are_found(client: redis.Redis, any_url: str) -> None:
    assert queues_consumed(client) == []
    with connect(any_url) as connection:
        consumer = ClaimingConsumer(connection, lease_s=60)
        for queue in (QUEUE, "infer.other", "score.digits", "celery"):
            consumer.queues.add(queue)
        assert queues_consumed(client) == [QUEUE, "infer.other"]
        consumer.close()


def test_a_queue_is_served_while_it_has_a_consumer(client: redis.Redis, any_url: str) -> None:
    assert not is_served(client, QUEUE)
    with Connection(headrace_url(any_url)) as connection:
        channel = connection.default_channel
        with connection.Consumer([Queue(QUEUE), Queue("infer.other")], channel=channel, callbacks=[print]) as consumer:
            assert is_served(client, QUEUE)
            assert is_served(client, "infer.other")
            assert not is_served(client, "infer.third")
            consumer.cancel_by_queue(QUEUE)
            assert not is_served(client, QUEUE)
            assert is_served(client, "infer.other")
        assert not is_served(client, "infer.other")


def test_a_consumer_that_closes_is_known_no_more(client: redis.Redis, any_url: str) -> None:
    one, two = (ClaimingConsumer(connect(any_url), lease_s=60) for _ in range(2))
    one.queues.add(QUEUE)
    two.queues.add(QUEUE)
    one.close()
    assert is_served(client, QUEUE)
    two.close()
    assert not is_served(client, QUEUE)
    assert not client.exists(keys.PLAIN.consumers(QUEUE))
    for consumer in (one, two):
        consumer.client.close()


def test_a_queue_without_acknowledgements_counts_no_consumers(client: redis.Redis, any_url: str) -> None:
    with Connection(headrace_url(any_url)) as connection, connection.Consumer([Queue("replies")], no_ack=True):
        assert not client.keys("headrace:consumers:*")


def test_a_consumer_is_known_for_as_long_as_its_keeper_renews(client: redis.Redis, any_url: str) -> None:
    with connect(any_url) as own:
        consumer = ClaimingConsumer(own, lease_s=2.0)
        consumer.queues.add(QUEUE)
        keeper = LeaseKeeper(consumer, connect(any_url))
        keeper.start()
        key = keys.PLAIN.consumers(QUEUE)
        first = score_of(client, key, consumer.id)
        eventually(lambda: score_of(client, key, consumer.id) > first + 2500, 30, "a renewal")
        assert is_served(client, QUEUE)
        keeper.stop()
        eventually(lambda: not is_served(client, QUEUE), 30, "the queue to be served no more")
        consumer.close()


def test_a_killed_consumer_is_known_until_its_lease_ends_and_then_forgotten(
    client: redis.Redis, any_url: str, run: Callable[..., Any]
) -> None:
    program = run("-c", SERVING, any_url, "2")
    program.wait_for("serving")
    assert is_served(client, QUEUE)
    program.kill()
    eventually(lambda: not is_served(client, QUEUE), 30, "the queue to be served no more")
    with connect(any_url) as own:
        consumer = ClaimingConsumer(own, lease_s=60)
        consumer.queues.add(QUEUE)
        assert client.zrange(keys.PLAIN.consumers(QUEUE), 0, -1) == [consumer.id.encode()]
        consumer.close()


def test_asyncio_sees_the_same(client: redis.Redis, any_url: str) -> None:
    async def look() -> bool:
        async with redis.asyncio.Redis.from_url(any_url) as own:
            return await is_served_async(own, QUEUE)

    assert not asyncio.run(look())
    client.zadd(keys.PLAIN.consumers(QUEUE), {"somebody": (time.time() + 60) * 1000})
    assert asyncio.run(look())


def test_a_claim_costs_no_word_about_consumers(client: redis.Redis, any_url: str) -> None:
    with connect(any_url) as own:
        consumer = ClaimingConsumer(own, lease_s=60)
        consumer.queues.add(QUEUE)
        before = client.zscore(keys.PLAIN.consumers(QUEUE), consumer.id)
        client.lpush(QUEUE, *[b"x"] * 10)
        for _ in range(5):
            found = consumer.claim({QUEUE: 2})
            consumer.ack([delivery.tag for delivery in found])
        assert client.zscore(keys.PLAIN.consumers(QUEUE), consumer.id) == before
        consumer.close()


@pytest.mark.parametrize("ends_in_s", [-1, 60])
def test_only_leases_that_last_count(client: redis.Redis, ends_in_s: float) -> None:
    client.zadd(keys.PLAIN.consumers(QUEUE), {"old": 1.0, "last": (time.time() + ends_in_s) * 1000})
    assert is_served(client, QUEUE) is (ends_in_s > 0)


def version(name: str, size: int = 1) -> Served:
    specs = (TensorSpec(name="x", datatype="FP32", shape=(size,)),)
    return Served(name, Signature(inputs=specs, outputs=specs))


def test_what_consumers_serve_is_known_while_they_are_there(client: redis.Redis, any_url: str) -> None:
    one, two, silent = (ClaimingConsumer(connect(any_url), lease_s=60) for _ in range(3))
    for consumer in (one, two, silent):
        consumer.queues.add(QUEUE)
    assert served(client, QUEUE) == []
    one.queues.serve({QUEUE: version("1"), "infer.other": version("7")})
    two.queues.serve({QUEUE: version("1")})
    assert served(client, QUEUE) == [version("1")]
    two.queues.serve({QUEUE: version("2", size=2)})
    assert sorted(served(client, QUEUE), key=lambda each: each.version) == [version("1"), version("2", size=2)]

    async def look() -> list[Served]:
        async with redis.asyncio.Redis.from_url(any_url) as own:
            return await served_async(own, QUEUE)

    assert sorted(each.version for each in asyncio.run(look())) == ["1", "2"]
    one.close()
    assert served(client, QUEUE) == [version("2", size=2)]
    client.zadd(keys.PLAIN.consumers(QUEUE), {two.id: 1.0})  # its lease has ended
    assert served(client, QUEUE) == []
    two.close()
    silent.close()
    assert not client.keys("headrace:served:*")
    for consumer in (one, two, silent):
        consumer.client.close()


def test_what_a_consumer_serves_is_said_again_when_the_server_has_lost_it(client: redis.Redis, any_url: str) -> None:
    with connect(any_url) as own:
        consumer = ClaimingConsumer(own, lease_s=60)
        consumer.queues.serve_again()
        assert not client.keys("headrace:served:*")
        consumer.queues.add(QUEUE)
        consumer.queues.serve({QUEUE: version("1")})
        losses: list[Callable[[], object]] = [lambda: client.expire(keys.PLAIN.served(consumer.id), 5), client.flushdb]
        for lose in losses:
            lose()
            consumer.queues.serve_again()
            consumer.queues.renew()
            assert served(client, QUEUE) == [version("1")]
            assert client.ttl(keys.PLAIN.served(consumer.id)) > SERVED_TTL_S - 10
        consumer.close()


def test_problems_that_consumers_report_are_read_in_one_go(client: redis.Redis, any_url: str) -> None:
    one, two, three = (ClaimingConsumer(connect(any_url), lease_s=60) for _ in range(3))
    reports = {one: ("wrong credentials", 200.5), two: ("wrong credentials", 100.0), three: ("no such model", 150.0)}
    for consumer, (text, since) in reports.items():
        consumer.queues.add(QUEUE)
        consumer.queues.serve({QUEUE: msgspec.structs.replace(version("1"), problem=Problem(text, since))})
    found = served_on(client, [QUEUE, "infer.other"])
    assert found["infer.other"] == []
    assert problems_in(found[QUEUE]) == [Problem("wrong credentials", 100.0), Problem("no such model", 150.0)]
    for consumer in reports:
        consumer.queues.serve({QUEUE: version("1")})
    assert problems_in(served(client, QUEUE)) == []
    assert served_on(client, []) == {}
    for consumer in reports:
        consumer.close()
        consumer.client.close()


def test_a_worker_that_knows_no_problems_is_understood(client: redis.Redis) -> None:
    client.zadd(keys.PLAIN.consumers(QUEUE), {"older": (time.time() + 60) * 1000})
    client.hset(keys.PLAIN.served("older"), QUEUE, b'{"version":"1","signature":{"inputs":[],"outputs":[]}}')
    assert served(client, QUEUE) == [Served("1", Signature(inputs=(), outputs=()))]


@pytest.mark.parametrize(
    "word", [b"", b"not JSON", b'{"version": "1"}', b'{"version": "1", "signature": {"inputs": 1}}']
)
def test_what_cannot_be_understood_counts_for_nothing(client: redis.Redis, word: bytes) -> None:
    client.zadd(keys.PLAIN.consumers(QUEUE), {"newer": (time.time() + 60) * 1000})
    client.hset(keys.PLAIN.served("newer"), QUEUE, word)
    assert served(client, QUEUE) == []
