"""Queue statistics, on Valkey and on Redis 6.2."""

from __future__ import annotations

import time

import redis

from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.queueing import ClaimingConsumer, queue_stats
from headrace.queueing.lists import queue_list


def send(client: redis.Redis, model: str, age_s: float, step: int = 0, body: bytes = b"") -> None:
    header = RequestHeader(submitted_at=time.time() - age_s)
    request = Request(id="1", model=model, body=body, header=header, priority=step)
    client.lpush(queue_list(f"infer.{model}", step), encode_request(request))


def test_a_queue_is_counted_by_step_in_flight_and_dead(client: redis.Redis) -> None:
    for age_s in (5000, 4000, 3000):
        send(client, "a", age_s)
    send(client, "a", 1000, step=9, body=b"x" * 50_000)
    consumer = ClaimingConsumer(client, lease_s=60)
    urgent, _ = consumer.claim({"infer.a": 2})
    consumer.dead_letter(urgent.tag, "for a test", [])
    send(client, "a", 2000, step=6)
    (stats,) = queue_stats(client, ["infer.a"])
    assert stats.waiting == 3
    assert stats.waiting_by_step == {9: 0, 6: 1, 3: 0, 0: 2}
    assert (stats.in_flight, stats.dead) == (1, 1)
    assert stats.oldest_age_s is not None
    assert 4000 <= stats.oldest_age_s < 5000


def test_messages_of_foreign_clients_have_no_age(client: redis.Redis) -> None:
    client.lpush("infer.a", "no envelope")
    client.lpush("infer.b", '{"headers": {"headrace": 5}, "properties": {}}')
    assert [stats.oldest_age_s for stats in queue_stats(client)] == [None, None]
    assert [stats.waiting for stats in queue_stats(client)] == [1, 1]


def test_queues_are_found_by_what_waits_is_in_flight_or_dead(client: redis.Redis) -> None:
    for model in ("waiting", "held", "dead"):
        send(client, model, 1, step=3)
    client.lpush("celery", "not ours")
    client.set("infer.notalist", 1)
    consumer = ClaimingConsumer(client, lease_s=60)
    consumer.claim({"infer.held": 1})
    (dead,) = consumer.claim({"infer.dead": 1})
    consumer.dead_letter(dead.tag, "for a test", [])
    assert [stats.queue for stats in queue_stats(client)] == ["infer.dead", "infer.held", "infer.waiting"]


def test_a_queue_of_which_nothing_is_known_is_empty(client: redis.Redis) -> None:
    (stats,) = queue_stats(client, ["infer.none"])
    assert (stats.waiting, stats.in_flight, stats.dead, stats.oldest_age_s) == (0, 0, 0, None)
    assert queue_stats(client) == []
