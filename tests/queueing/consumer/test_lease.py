"""Leases: what a consumer held that died comes back, and a keeper survives outages."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.queueing.commands import score_of

from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect
from headrace.queueing.keys import PLAIN

QUEUE = "infer.digits"

CLAIM_AND_HANG = """
import sys, time
from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect
consumer = ClaimingConsumer(connect(sys.argv[1]), lease_s=float(sys.argv[2]))
keeper = LeaseKeeper(consumer, connect(sys.argv[1]))
keeper.start()
print("claimed", len(consumer.claim({"infer.digits": 60})))
sys.stdin.read()
time.sleep(600)
"""

CLAIM_AND_FORK = """
import os, sys
from headrace.queueing import ClaimingConsumer, connect
consumer = ClaimingConsumer(connect(sys.argv[1]), lease_s=60)
consumer.claim({"infer.digits": 2})
child = os.fork()
if child == 0:
    consumer.ack(["1:infer.digits"])
    found = consumer.claim({"infer.digits": 1})
    consumer.release()
    os._exit(0 if [d.raw for d in found] == [b"c"] else 1)
_, status = os.waitpid(child, 0)
print("child", status, "held", consumer.held, consumer.client.hlen("headrace:inflight:" + consumer.id))
"""


@pytest.fixture
def client(broker_url: str) -> Any:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def test_a_killed_consumer_loses_no_message(client: redis.Redis, broker_url: str, run: Callable[..., Any]) -> None:
    names = [f"m{number}".encode() for number in range(100)]
    for name in names:
        client.lpush(QUEUE, name)
    program = run("-c", CLAIM_AND_HANG, broker_url, "0.5")
    program.wait_for("claimed 60")
    assert client.llen(QUEUE) == 40
    client.delete(PLAIN.doorbell(QUEUE))
    program.kill()
    with connect(broker_url) as own:
        keeper = LeaseKeeper(ClaimingConsumer(own, lease_s=0.5), connect(broker_url))
        keeper.start()
        assert client.blpop([PLAIN.doorbell(QUEUE)], timeout=30) is not None
        keeper.stop()
        assert client.lrange(QUEUE, 0, -1) == names[::-1]
        again = ClaimingConsumer(own, lease_s=60).claim({QUEUE: 61})
        assert [delivery.deliveries for delivery in again] == [1] * 60 + [0]


def test_a_lease_outlives_its_term_while_its_keeper_runs(client: redis.Redis, broker_url: str) -> None:
    client.lpush(QUEUE, "a")
    with connect(broker_url) as own:
        consumer = ClaimingConsumer(own, lease_s=2.0)
        consumer.claim({QUEUE: 1})
        first = score_of(client, PLAIN.leases, consumer.id)
        keeper = LeaseKeeper(consumer, connect(broker_url))
        keeper.start()
        while score_of(client, PLAIN.leases, consumer.id) < first + 5000:  # two terms and a half
            consumer.reap()
        keeper.stop()
        assert client.hvals(PLAIN.in_flight(consumer.id)) == [b"a"]


def test_a_keeper_survives_an_outage_and_says_so_once(
    client: redis.Redis, wired_url: str, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.lpush(QUEUE, "a")
    changes: list[str] = []
    changed = threading.Condition()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with changed:
                changes.append(record.getMessage().split()[0])
                changed.notify_all()

    def wait_for(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(changes) >= count, timeout=30)

    listener = Listener()
    logging.getLogger("headrace.queueing").addHandler(listener)
    with connect(wired_url) as own:
        consumer = ClaimingConsumer(own, lease_s=0.4)
        consumer.claim({QUEUE: 1})
        keeper = LeaseKeeper(consumer, connect(wired_url))
        keeper.start()
        wire.cut()
        wait_for(1)
        wire.mend()
        wait_for(2)
        keeper.stop()
    logging.getLogger("headrace.queueing").removeHandler(listener)
    assert changes == ["queueing.lease_not_renewed", "queueing.lease_renewed_again"]


def test_a_stopped_keeper_is_gone_at_once_however_long_the_lease(broker_url: str) -> None:
    with connect(broker_url) as own:
        keeper = LeaseKeeper(ClaimingConsumer(own, lease_s=3600), connect(broker_url))
        keeper.start()
        keeper.stop()
        assert "headrace-lease" not in [thread.name for thread in threading.enumerate()]


def test_a_forked_child_touches_nothing_of_its_parent(
    client: redis.Redis, broker_url: str, run: Callable[..., Any]
) -> None:
    for name in "abc":
        client.lpush(QUEUE, name)
    run("-W", "ignore", "-c", CLAIM_AND_FORK, broker_url).wait_for("child 0 held 2 2")
    assert os.getpid()
