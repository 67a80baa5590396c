"""What becomes of a message: acknowledged, rejected, put back, overtaken, expired; and simple queues."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import kombu
import pytest
import redis
from tests.eventually import eventually
from tests.queueing.functional.conftest import Reader

Read = Callable[..., list[Any]]
QUEUE = kombu.Queue("tasks")

#: The ways to open a simple queue: one that acknowledges, and one that doesn't.
KINDS = ["SimpleQueue", "SimpleBuffer"]


def send(connection: kombu.Connection, *bodies: Any, priority: int = 0) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key=QUEUE.name, declare=[QUEUE], priority=priority)


def leases(client: redis.Redis, prefix: str) -> int:
    return sum(int(client.hlen(key)) for key in client.scan_iter(f"{prefix}headrace:inflight:*"))


def test_an_acknowledged_message_is_gone(
    connection: kombu.Connection, read: Read, client: redis.Redis, prefix: str
) -> None:
    send(connection, "a")
    assert read(1, QUEUE) == ["a"]
    assert leases(client, prefix) == 0
    assert read(0, QUEUE) == []


def test_a_rejected_message_is_gone(connection: kombu.Connection, read: Read, client: redis.Redis, prefix: str) -> None:
    send(connection, "a")
    assert read(1, QUEUE, settle="reject") == ["a"]
    assert leases(client, prefix) == 0
    assert read(0, QUEUE) == []


@pytest.mark.parametrize("settle", ["requeue", "reject_and_requeue"])
def test_a_message_that_is_put_back_comes_again(connection: kombu.Connection, read: Read, settle: str) -> None:
    send(connection, "a")
    (message,) = taken(connection, 1)
    message.requeue() if settle == "requeue" else message.reject(requeue=True)
    assert read(1, QUEUE) == ["a"]


def test_a_message_that_nobody_settled_comes_back_with_the_end_of_its_channel(
    connection: kombu.Connection, read: Read
) -> None:
    with kombu.Connection(**connection.info()) as other:
        send(other, "a", "b")
        taken(other, 2)
    assert read(2, QUEUE) == ["a", "b"]


def test_a_message_is_settled_once(connection: kombu.Connection) -> None:
    send(connection, "a")
    (message,) = taken(connection, 1)
    message.ack()
    for settle in (message.ack, message.reject, message.requeue):
        with pytest.raises(kombu.exceptions.MessageStateError):
            settle()


def taken(connection: kombu.Connection, count: int) -> list[Any]:
    reader = Reader(connection, QUEUE, settle="")
    reader.read(count)
    return list(reader.messages)


def test_the_most_urgent_is_first_also_after_all_was_put_back(connection: kombu.Connection, read: Read) -> None:
    send(connection, "low 1", priority=6)
    send(connection, "high", priority=3)
    send(connection, "low 2", priority=6)
    first = taken(connection, 3)
    assert [message.payload for message in first] == ["high", "low 1", "low 2"]
    for message in first:
        message.requeue()
    send(connection, "highest", priority=0)
    again = read(4, QUEUE)
    assert again[:2] == ["highest", "high"]
    assert sorted(again[2:]) == ["low 1", "low 2"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_simple_queue_gives_what_was_put(connection: kombu.Connection, kind: str) -> None:
    with closing(getattr(connection, kind)("simple")) as queue:
        queue.put({"text": "ä"}, headers={"trace": "1"})
        message = queue.get(timeout=5)
        assert message.payload == {"text": "ä"}
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
        assert message.headers == {"trace": "1"}
        message.ack()
        with pytest.raises(queue.Empty):
            queue.get_nowait()


@pytest.mark.parametrize("kind", KINDS)
def test_a_simple_queue_knows_priorities_and_its_length(connection: kombu.Connection, kind: str) -> None:
    with closing(getattr(connection, kind)("simple", queue_opts={"max_priority": 10})) as queue:
        for body, priority in (("low 1", 7), ("high", 1), ("low 2", 7)):
            queue.put(body, priority=priority)
        assert queue.qsize() == 3
        bodies = []
        for _ in range(3):
            message = queue.get(timeout=5)
            message.ack()
            bodies.append(message.payload)
        assert bodies == ["high", "low 1", "low 2"]
        queue.put("more")
        assert queue.clear() == 1
        with pytest.raises(queue.Empty):
            queue.get_nowait()


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_for_an_empty_queue_ends_in_time(connection: kombu.Connection, kind: str) -> None:
    with closing(getattr(connection, kind)("empty")) as queue, pytest.raises(queue.Empty):
        queue.get(timeout=0.2)


def test_a_consumer_of_an_empty_queue_is_told_that_the_time_is_up(connection: kombu.Connection) -> None:
    with connection.Consumer([kombu.Queue("empty")]), pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)


def test_a_temporary_queue_goes_with_its_time(connection: kombu.Connection, client: redis.Redis, prefix: str) -> None:
    queue = kombu.Queue("short", expires=1)
    connection.Producer().publish("a", routing_key="short", declare=[queue])
    assert 0 < client.pttl(f"{prefix}short") <= 1000
    eventually(lambda: not client.exists(f"{prefix}short"), 30, "the queue to expire")
    assert Reader(connection, queue).read(0) == []


def test_all_lists_of_a_temporary_queue_have_its_time(
    connection: kombu.Connection, client: redis.Redis, prefix: str
) -> None:
    queue = kombu.Queue("short", expires=20, max_priority=10)
    for priority in (0, 3, 6, 9):
        connection.Producer().publish(priority, routing_key="short", declare=[queue], priority=priority)
    keys = list(client.scan_iter(f"{prefix}short*"))
    assert len(keys) == 4
    assert all(0 < client.pttl(key) <= 20_000 for key in keys)


@pytest.mark.parametrize("use", ["put", "get"])
def test_using_a_temporary_queue_gives_it_its_whole_time_again(
    connection: kombu.Connection, client: redis.Redis, prefix: str, use: str
) -> None:
    queue = kombu.Queue("short", expires=20)
    for body in range(3):
        connection.Producer().publish(body, routing_key="short", declare=[queue])
    client.pexpire(f"{prefix}short", 10_000)
    if use == "put":
        connection.Producer().publish(3, routing_key="short", declare=[queue])
    else:
        message = queue(connection.default_channel).get()
        assert message is not None
        message.ack()
    assert 10_000 < client.pttl(f"{prefix}short") <= 20_000


def test_a_queue_that_is_declared_again_without_a_time_has_none(
    connection: kombu.Connection, client: redis.Redis, prefix: str
) -> None:
    connection.Producer().publish(1, routing_key="short", declare=[kombu.Queue("short", expires=20)])
    connection.Producer().publish(2, routing_key="other", declare=[kombu.Queue("other", expires=20)])
    kombu.Queue("other")(connection.default_channel).declare()
    client.persist(f"{prefix}other")
    connection.Producer().publish(3, routing_key="other")
    assert client.pttl(f"{prefix}short") > 0
    assert client.pttl(f"{prefix}other") == -1
