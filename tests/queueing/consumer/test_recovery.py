"""Moving between `redis://` and `headrace://`: what dead workers of the other kind held comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kombu
import pytest
import redis
from tests.eventually import eventually
from tests.queueing.functional.conftest import Reader

from headrace.queueing import ClaimingConsumer, connect, headrace_url, recover
from headrace.queueing.keys import PLAIN

TOPIC = kombu.Exchange("orders", type="topic")
DIRECT = kombu.Exchange("tasks", type="direct")
QUEUES = {
    "tasks": kombu.Queue("tasks", DIRECT, routing_key="tasks"),
    "new": kombu.Queue("new", TOPIC, routing_key="order.#"),
    "plain": kombu.Queue("plain"),
}

HOLD = """
import os, signal, sys, json
import headrace.queueing
import kombu
url, prefix, routes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with kombu.Connection(url, transport_options={"global_keyprefix": prefix} if prefix else {}) as connection:
    kinds = {"tasks": "direct", "orders": "topic"}
    for name, exchange, key, body, priority in routes:
        exchange = kombu.Exchange(exchange, type=kinds[exchange]) if exchange else kombu.Exchange("")
        queue = kombu.Queue(name, exchange, routing_key=key) if exchange.name else kombu.Queue(name)
        to = "order.new.eu" if exchange.name == "orders" else key
        connection.Producer().publish(body, exchange=exchange, routing_key=to, declare=[queue], priority=priority)
    queues = [kombu.Queue(name) for name, *_ in routes]
    held = []
    with connection.Consumer(queues, on_message=held.append):
        while len(held) < len(routes):
            connection.drain_events(timeout=30)
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

#: queue, exchange, routing key, body, priority
ROUTES = [
    ("tasks", "tasks", "tasks", 1, 0),
    ("tasks", "tasks", "tasks", 2, 9),
    ("new", "orders", "order.#", {"é": [1.5, 2**60, {}, []]}, 3),
    ("plain", "", "plain", "text", 6),
]


@pytest.fixture
def hold(run: Callable[..., Any]) -> Callable[..., None]:
    """Run a process that takes messages and is killed while it holds them."""

    def start(url: str, prefix: str = "", routes: Any = ROUTES) -> None:
        import json

        program = run("-c", HOLD, url, prefix, json.dumps(routes))
        program.wait_for("held")
        program.process.wait()

    return start


def app(url: str, prefix: str = "", **options: Any) -> kombu.Connection:
    return kombu.Connection(url, transport_options={"global_keyprefix": prefix, **options})


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_what_a_dead_worker_of_redis_held_is_put_back_where_it_was(
    any_url: str, hold: Callable[..., None], prefix: str
) -> None:
    hold(any_url, prefix)
    with connect(any_url, prefix=prefix) as client:
        found = recover(client)
        assert (found.put_back, found.younger, found.unroutable) == (0, 4, 0)
        found = recover(client, 0, queues={"plain"})
        assert (found.put_back, found.younger, found.unroutable) == (1, 0, 0)
        found = recover(client, 0)
        assert (found.put_back, found.younger, found.unroutable) == (3, 0, 0)
        assert recover(client, 0) == recover(client, 3600)
        assert not client.exists(prefix + "unacked", prefix + "unacked_index")
        assert client.llen(prefix + PLAIN.queue_list("tasks", 9)) == client.llen(prefix + "tasks") == 1
        assert client.llen(prefix + PLAIN.doorbell("new")) == 1
    with app(headrace_url(any_url), prefix) as connection:
        reader = Reader(connection, *QUEUES.values())
        bodies = reader.read(4)
        assert sorted(map(str, bodies)) == sorted(str(body) for _, _, _, body, _ in ROUTES)
        assert all(message.headers["redelivered"] for message in reader.messages)
        assert all(message.delivery_info["redelivered"] for message in reader.messages)


def test_a_consumer_of_headrace_does_it_by_itself_for_its_own_queues(
    broker_url: str, hold: Callable[..., None]
) -> None:
    hold(broker_url)
    time.sleep(0.1)  # longer than the visibility timeout below
    with app(headrace_url(broker_url), visibility_timeout=0.05) as connection, connect(broker_url) as client:
        assert Reader(connection, QUEUES["tasks"]).read(2) in ([1, 2], [2, 1])
        assert client.hlen("unacked") == 2
    with app(headrace_url(broker_url)) as connection:
        assert Reader(connection, QUEUES["plain"]).read(0) == []


def test_what_its_worker_acknowledges_meanwhile_is_not_put_back(
    broker_url: str, hold: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(broker_url, routes=ROUTES[:1])
    with connect(broker_url) as client:
        hmget = client.hmget

        def read_then_lose(*args: Any) -> Any:
            found = hmget(*args)
            client.delete("unacked", "unacked_index")
            return found

        monkeypatch.setattr(client, "hmget", read_then_lose)
        assert recover(client, 0).put_back == 0
        assert not client.exists("tasks")


def test_what_belongs_to_no_queue_any_more_or_makes_no_sense_stays(broker_url: str, hold: Callable[..., None]) -> None:
    hold(broker_url, routes=ROUTES[:2])
    with connect(broker_url) as client:
        client.delete("_kombu.binding.tasks")
        odd: dict[str, str | bytes] = {
            "a": "no JSON",
            "b": "[1, 2]",
            "c": '[{"properties": {}}, "", "q"]',
            "d": '[[], "", "q"]',
            "e": b"\xff",
        }
        client.hset("unacked", mapping=odd)
        client.zadd("unacked_index", dict.fromkeys([*odd, "gone"], 1.0))
        found = recover(client, 0)
        assert (found.put_back, found.unroutable) == (0, 7)
        assert client.hlen("unacked") == client.zcard("unacked_index") == 7
        client.sadd("_kombu.binding.tasks", "tasks\x06\x16\x06\x16tasks", "x\x06\x16(\x06\x16y", "odd")
        assert recover(client, 0).put_back == 2


def test_what_dead_workers_of_headrace_held_is_put_back_for_workers_of_redis(
    broker_url: str, client: redis.Redis, hold: Callable[..., None]
) -> None:
    hold(headrace_url(broker_url), routes=ROUTES[:2])
    leases: list[Any] = client.zrange(PLAIN.leases, 0, -1)
    assert len(leases) == 1
    client.zadd(PLAIN.leases, {leases[0]: 1})
    assert ClaimingConsumer(client, lease_s=60).reap() == 2
    with app(broker_url) as connection:
        assert sorted(Reader(connection, QUEUES["tasks"]).read(2)) == [1, 2]


@pytest.fixture
def client(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def test_a_worker_that_lives_keeps_what_it_took(broker_url: str, client: redis.Redis) -> None:
    with app(broker_url) as living, connect(broker_url) as ours:
        living.Producer().publish(1, routing_key="plain", declare=[QUEUES["plain"]])
        reader = Reader(living, QUEUES["plain"], settle="")
        reader.read(1)
        eventually(lambda: client.hlen("unacked") == 1, 30, "kombu to note it")
        found = recover(ours)
        assert (found.put_back, found.younger) == (0, 1)
        reader.messages[0].ack()
        assert recover(ours, 0) == recover(ours)
