"""What a worker announces of its models: at once, again before it expires, and anew when something has changed."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis
from tests.queueing.wire import Wire

from headrace.contracts import Settings, Signature
from headrace.contracts.problem import Problem
from headrace.queueing import ClaimingConsumer, connect_to, keys
from headrace.queueing.consumer.serving import Served, served
from headrace.workers.celery_app.announcement import Announcement

QUEUE = "infer.m"
PROBLEM = Problem("wrong credentials", 1.5)


class Worker:
    """A worker with one model."""

    def __init__(self, consumer: ClaimingConsumer) -> None:
        self.version = "1"
        self.problem: Problem | None = None
        self.announcement = Announcement(self.served, self.problems, consumer.queues)

    def served(self) -> dict[str, Served]:
        return {QUEUE: Served(self.version, Signature(inputs=(), outputs=()), problem=self.problem)}

    def problems(self) -> dict[str, Problem]:
        return {QUEUE: self.problem} if self.problem else {}


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with connect_to(settings) as client:
        yield client


@pytest.fixture
def consumer(settings: Settings) -> Iterator[ClaimingConsumer]:
    with connect_to(settings) as client:
        consumer = ClaimingConsumer(client, lease_s=60)
        consumer.queues.add(QUEUE)
        yield consumer
        consumer.close()


def test_problems_are_announced_when_they_come_and_when_they_go(
    broker: redis.Redis, consumer: ClaimingConsumer
) -> None:
    worker = Worker(consumer)
    worker.announcement.announce()
    assert served(broker, QUEUE) == list(worker.served().values())
    for worker.problem in (PROBLEM, Problem("no such model", 1.5), None):
        worker.announcement.look()
        assert [each.problem for each in served(broker, QUEUE)] == [worker.problem]


def test_a_look_that_finds_nothing_new_sends_nothing(broker: redis.Redis, consumer: ClaimingConsumer) -> None:
    worker = Worker(consumer)
    worker.problem = PROBLEM
    worker.announcement.announce()
    broker.delete(keys.PLAIN.served(consumer.id))
    worker.announcement.look()
    assert served(broker, QUEUE) == []


def test_a_renewal_says_again_what_was_lost_or_has_changed(broker: redis.Redis, consumer: ClaimingConsumer) -> None:
    worker = Worker(consumer)
    worker.announcement.announce()
    broker.delete(keys.PLAIN.served(consumer.id))
    worker.announcement.renew()
    assert [each.version for each in served(broker, QUEUE)] == ["1"]
    worker.version = "2"
    worker.announcement.renew()
    assert [each.version for each in served(broker, QUEUE)] == ["2"]


def test_what_could_not_be_sent_is_announced_by_the_next_look(broker: redis.Redis, broker_url: str, wire: Wire) -> None:
    path = urlsplit(broker_url).path
    with redis.Redis.from_url(f"redis://127.0.0.1:{wire.port}{path}", retry=None) as client:
        consumer = ClaimingConsumer(client, lease_s=60)
        consumer.queues.add(QUEUE)
        worker = Worker(consumer)
        worker.announcement.announce()
        worker.problem = PROBLEM
        wire.cut()
        with pytest.raises(redis.RedisError):
            worker.announcement.look()
        wire.mend()
        worker.announcement.look()
        assert [each.problem for each in served(broker, QUEUE)] == [PROBLEM]
        consumer.close()
