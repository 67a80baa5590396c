"""`headrace queue`: under a key prefix, and putting back what dead workers of either transport held."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from kombu.utils.json import dumps
from tests.cli.conftest import Outcome

from headrace.contracts import Signature
from headrace.contracts.problem import Problem
from headrace.queueing import ClaimingConsumer, connect
from headrace.queueing.consumer.serving import Served
from headrace.queueing.keys import Keys

MESSAGE = {"body": "", "properties": {"delivery_info": {"exchange": "", "routing_key": "celery"}}, "headers": {}}


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_recover_puts_back_what_dead_workers_of_both_kinds_held(
    monkeypatch: pytest.MonkeyPatch, broker_url: str, headrace: Callable[..., Outcome], prefix: str
) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", prefix)
    keys = Keys(prefix)
    with connect(broker_url, prefix=prefix) as broker:
        broker.lpush(keys.queue_list("infer.digits", 3), "message")
        ClaimingConsumer(broker, lease_s=0.001).claim({"infer.digits": 1})
        for tag, age in (("old", 1.0), ("young", 4e9)):
            broker.hset(f"{prefix}unacked", tag, dumps([MESSAGE, "", "celery"]))
            broker.zadd(f"{prefix}unacked_index", {tag: age})
        broker.hset(f"{prefix}unacked", "odd", "garbage")
        broker.zadd(f"{prefix}unacked_index", {"odd": 1.0})
        told = headrace("queue", "recover").err
        assert "put back 1 of redis:// workers and 1 of headrace:// workers that died" in told
        assert "left 1 that redis:// workers took less than 3600 s ago" in told
        assert "left 1 in `unacked`" in told
        assert broker.llen(f"{prefix}celery") == broker.llen(keys.queue_list("infer.digits", 3)) == 1
        broker.zadd(f"{prefix}unacked_index", {"young": 1.0})
        answer = headrace("queue", "recover", "--older", "0s", "--json").json()
        assert answer == {"headrace": 0, "redis": 1, "younger": 0, "unroutable": 1}
        assert [one["queue"] for one in headrace("queue", "stats", "--json").json()] == ["infer.digits"]


def test_another_prefix_is_another_world(
    monkeypatch: pytest.MonkeyPatch, broker_url: str, headrace: Callable[..., Outcome]
) -> None:
    with redis.Redis.from_url(broker_url) as broker:
        broker.lpush("infer.digits", "message")
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    assert len(headrace("queue", "stats", "--json").json()) == 1
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "shop:")
    assert headrace("queue", "stats", "--json").json() == []
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "shop*")
    told = headrace("queue", "stats").err
    assert "HEADRACE_KEY_PREFIX is wrong: a key prefix holds" in told
    assert told.count("\n") <= 2


def test_stats_say_what_keeps_requests_waiting(
    monkeypatch: pytest.MonkeyPatch, broker_url: str, headrace: Callable[..., Outcome]
) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    with connect(broker_url) as broker:
        broker.lpush("infer.digits", "message")
        broker.lpush("infer.other", "message")
        consumer = ClaimingConsumer(broker, lease_s=60)
        consumer.queues.add("infer.digits")
        problem = Problem("digits at grpc://host:8500: wrong token; set HEADRACE_SERVER_CREDENTIALS_<NAME>", 1e9)
        consumer.queues.serve({"infer.digits": Served("1", Signature(inputs=(), outputs=()), problem=problem)})
        assert headrace("queue", "stats").out.splitlines()[-1] == (
            "digits: digits at grpc://host:8500: wrong token; set HEADRACE_SERVER_CREDENTIALS_<NAME> (since 2001-09-09 "
            "01:46:40 UTC)"
        )
        found = {one["queue"]: one["problem"] for one in headrace("queue", "stats", "--json").json()}
        assert found == {"infer.digits": [{"text": problem.text, "since": 1e9}], "infer.other": []}
        consumer.close()
