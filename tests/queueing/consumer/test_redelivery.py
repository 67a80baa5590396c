"""What is remembered of messages that come back: deliveries, deaths of those that ran, retries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from tests.eventually import eventually
from tests.queueing.commands import run_command

from headrace.cli.stack.servers import Valkey
from headrace.queueing import ClaimingConsumer, RunningMarker, connect, queue_stats
from headrace.queueing.keys import PLAIN, RUNNING_TTL_S

QUEUE = "infer.digits"

NewConsumer = Callable[[], ClaimingConsumer]


class Wire(Protocol):
    def cut(self) -> None: ...
    def mend(self) -> None: ...


@pytest.fixture
def new_consumer(client: redis.Redis) -> NewConsumer:
    return lambda: ClaimingConsumer(client, lease_s=60)


@pytest.fixture
def mark(any_url: str) -> Iterator[RunningMarker]:
    with connect(any_url) as client:
        mark = RunningMarker(client, "worker@host")
        yield mark
        mark.close()


def settle(mark: RunningMarker, client: redis.Redis) -> None:
    """Wait until the server has read what the mark sent: it gives no answers, so ask it to leave a token."""
    mark.send("RPUSH", "settled", "1")
    assert client.blpop(["settled"], timeout=10)


def is_silent_after(mark: RunningMarker, tags: list[str]) -> bool:
    """Set a mark once more; return whether it has given the server up for a while."""
    mark.set({"one": tags})
    return mark._silent_until > 0


def die(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    client.zadd(PLAIN.leases, {consumer.id: 1}, xx=True)


def test_a_death_is_blamed_on_what_was_running_alone(
    client: redis.Redis, new_consumer: NewConsumer, mark: RunningMarker
) -> None:
    client.lpush(QUEUE, "a", "b", "c", "d")
    dead, alive = new_consumer(), new_consumer()
    found = dead.claim({QUEUE: 4})
    mark.set({dead.id: [found[0].tag]})
    mark.set({dead.id: [found[1].tag, found[2].tag]})
    settle(mark, client)
    die(client, dead)
    assert alive.reap() == 4
    again = alive.claim({QUEUE: 4})
    assert [(d.raw, d.deliveries, len(d.crashes)) for d in again] == [
        (b"a", 1, 0),
        (b"b", 1, 1),
        (b"c", 1, 1),
        (b"d", 1, 0),
    ]
    (death,) = again[1].crashes
    seconds, _ = client.time()
    assert death.worker == "worker@host"
    assert abs(death.at - seconds) < 60
    assert not client.exists(PLAIN.running(dead.id))
    alive.ack(delivery.tag for delivery in again)
    assert not client.exists(PLAIN.deliveries, PLAIN.deaths)


def test_nothing_is_blamed_after_the_mark_was_cleared(
    client: redis.Redis, new_consumer: NewConsumer, mark: RunningMarker
) -> None:
    client.lpush(QUEUE, "a")
    dead, alive = new_consumer(), new_consumer()
    mark.set({dead.id: [dead.claim({QUEUE: 1})[0].tag]})
    mark.clear()
    settle(mark, client)
    die(client, dead)
    alive.reap()
    (again,) = alive.claim({QUEUE: 1})
    assert (again.deliveries, again.crashes) == (1, ())


def test_a_worker_that_comes_back_takes_back_the_death_that_was_noted_of_it(
    client: redis.Redis, new_consumer: NewConsumer, mark: RunningMarker, any_url: str
) -> None:
    client.lpush(QUEUE, "a", "b")
    asleep, dead, alive = new_consumer(), new_consumer(), new_consumer()
    with connect(any_url) as own:
        other = RunningMarker(own, "another")
        for consumer, its in ((dead, other), (asleep, mark)):
            its.set({consumer.id: [delivery.tag for delivery in consumer.claim({QUEUE: 2})]})
            settle(its, client)
            die(client, consumer)
            assert alive.reap() == 2
        other.close()
    asleep.renew()
    assert asleep.held == 0
    again = alive.claim({QUEUE: 2})
    assert [(d.raw, d.deliveries, [death.worker for death in d.crashes]) for d in again] == [
        (b"a", 2, ["another"]),
        (b"b", 2, ["another"]),
    ]
    alive.ack(delivery.tag for delivery in again)
    assert not client.exists(PLAIN.deliveries, PLAIN.deaths)


def finish(client: redis.Redis, consumer: ClaimingConsumer, tags: list[str], way: str) -> None:
    """Acknowledge, at once or in a pipeline as the outbox does, before or after the loss was noticed."""
    if way == "noticed":
        consumer.renew()
    if way == "at once":
        consumer.ack(tags)
    else:
        for command in consumer.ack_commands(tags):
            run_command(client, *command)


@pytest.mark.parametrize("way", ["at once", "noticed"])
def test_an_acknowledgement_after_a_lapse_counts_for_what_still_waits(
    client: redis.Redis, new_consumer: NewConsumer, way: str
) -> None:
    client.lpush(QUEUE, "a", "b", "c")
    asleep, other = new_consumer(), new_consumer()
    tags = [delivery.tag for delivery in asleep.claim({QUEUE: 2})]
    die(client, asleep)
    assert other.reap() == 2
    finish(client, asleep, tags[:1], way)
    assert [delivery.raw for delivery in other.claim({QUEUE: 3})] == [b"b", b"c"]
    assert client.hlen(PLAIN.deliveries) == 1  # that of "b"


@pytest.mark.parametrize("way", ["at once", "noticed"])
@pytest.mark.parametrize("end", ["dies", "releases", "acknowledges", "acknowledged before"])
def test_an_acknowledgement_after_a_lapse_counts_though_another_runs_the_message(
    client: redis.Redis, new_consumer: NewConsumer, end: str, way: str
) -> None:
    client.lpush(QUEUE, "a")
    asleep, other, third = new_consumer(), new_consumer(), new_consumer()
    (first,) = asleep.claim({QUEUE: 1})
    die(client, asleep)
    other.reap()
    (second,) = other.claim({QUEUE: 1})
    assert second.redelivered
    if end == "acknowledged before":
        other.ack([second.tag])
    finish(client, asleep, [first.tag], way)
    if end == "dies":
        die(client, other)
        third.reap()
    elif end == "releases":
        other.release()
    else:
        other.ack([second.tag])
    assert third.claim({QUEUE: 1}) == []
    assert not client.exists(QUEUE, PLAIN.in_flight(other.id), PLAIN.deliveries, PLAIN.deaths)


def test_what_was_put_back_by_its_own_consumer_is_not_taken_to_be_done(
    client: redis.Redis, new_consumer: NewConsumer
) -> None:
    client.lpush(QUEUE, "a", "b")
    asleep, other = new_consumer(), new_consumer()
    a, b = asleep.claim({QUEUE: 2})
    die(client, asleep)
    other.reap()
    asleep.release([a.tag])
    asleep.ack([b.tag])
    assert [delivery.raw for delivery in other.claim({QUEUE: 2})] == [b"a"]


def test_deaths_are_kept_in_order_and_not_without_end(
    client: redis.Redis, new_consumer: NewConsumer, any_url: str
) -> None:
    client.lpush(QUEUE, "a")
    with connect(any_url) as own:
        for number in range(103):
            dead = new_consumer()
            mark = RunningMarker(own, f"worker {number}")
            mark.set({dead.id: [dead.claim({QUEUE: 1})[0].tag]})
            settle(mark, client)
            mark.close()
            die(client, dead)
            assert new_consumer().reap() == 1
    (again,) = new_consumer().claim({QUEUE: 1})
    assert again.deliveries == 103
    assert [death.worker for death in again.crashes] == [f"worker {number}" for number in range(3, 103)]


def test_a_mark_survives_the_cut_of_its_connection(broker_url: str, wired_url: str, wire: Wire) -> None:
    with redis.Redis.from_url(broker_url) as client, connect(wired_url) as own:
        mark = RunningMarker(own, "worker")
        mark.set({"one": ["1:q"]})
        settle(mark, client)
        wire.cut()
        # Linux keeps marks together for up to 0.2 s, so that long the cut may go unnoticed.
        eventually(lambda: is_silent_after(mark, ["2:q"]), 30, "the mark to notice the cut")
        wire.mend()
        mark._silent_until = 0.0
        mark.set({"one": ["3:q"]})
        settle(mark, client)
        assert client.get(PLAIN.running("one")) == b"worker\n3:q"
        assert 0 < client.ttl(PLAIN.running("one")) <= RUNNING_TTL_S
        mark.close()


def test_a_mark_arrives_though_its_process_is_killed_right_after(broker_url: str) -> None:
    """Linux may keep it back for a while, but not when the socket closes."""
    code = """
import sys, time
from headrace.queueing import RunningMarker, connect
mark = RunningMarker(connect(sys.argv[1]), "worker")
for number in range(200):
    mark.set({"one": [f"{number}:q"]})
print("marked", flush=True)
time.sleep(60)
"""
    with redis.Redis.from_url(broker_url) as client:
        with subprocess.Popen([sys.executable, "-c", code, broker_url], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"marked\n"
            process.kill()
        eventually(lambda: client.get(PLAIN.running("one")) == b"worker\n199:q", 30, "the last mark")


def test_a_server_that_reads_nothing_loses_marks_and_holds_up_nobody_for_ever(tmp_path: Path) -> None:
    """More marks than the sockets hold: the rest is waited for, and then given up until the server reads again."""
    many = [f"{number}:q" for number in range(10_000)]
    with Valkey(tmp_path) as server, connect(server.url) as own, redis.Redis.from_url(server.url) as client:
        mark = RunningMarker(own, "worker")
        mark.set({"one": many})
        settle(mark, client)
        assert (client.get(PLAIN.running("one")) or b"").count(b"\n") == len(many)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            eventually(lambda: is_silent_after(mark, many), 60, "the mark to give up")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        mark._silent_until = 0.0
        settle(mark, client)
        mark.close()


def test_a_lost_acknowledgement_counts_as_a_delivery(client: redis.Redis, new_consumer: NewConsumer) -> None:
    consumer = new_consumer()
    client.hset(PLAIN.in_flight(consumer.id), "900:" + QUEUE, "served")
    consumer.renew()
    consumer.renew()
    (again,) = consumer.claim({QUEUE: 1})
    assert (again.raw, again.deliveries, again.crashes) == (b"served", 1, ())


def test_a_deferred_message_comes_back_first_when_it_is_due(client: redis.Redis, new_consumer: NewConsumer) -> None:
    consumer, other = new_consumer(), new_consumer()
    client.lpush(PLAIN.queue_list(QUEUE, 6), "first")
    client.lpush(QUEUE, "a", "b")
    first, a, b = consumer.claim({QUEUE: 3})
    for delivery, delay_s in ((first, 0), (a, 0), (b, 3600)):
        assert run_command(client, *consumer.defer_command(delivery.tag, delay_s)) == 1
    assert consumer.held == client.hlen(PLAIN.in_flight(consumer.id)) == 0
    (stats,) = queue_stats(client)
    assert (stats.queue, stats.waiting, stats.in_flight, stats.delayed) == (QUEUE, 0, 0, 3)
    client.lpush(QUEUE, "c")
    found = other.claim({QUEUE: 5})
    assert [(d.raw, d.priority_step, d.deliveries, d.retries) for d in found] == [
        (b"first", 6, 0, 1),
        (b"a", 0, 0, 1),
        (b"c", 0, 0, 0),
    ]
    assert client.zcard(PLAIN.delayed) == client.hlen(PLAIN.delayed_messages) == 1
    other.ack(delivery.tag for delivery in found)
    assert client.hlen(PLAIN.retries) == 1


def test_a_message_that_waits_for_its_time_counts_no_retry(client: redis.Redis, new_consumer: NewConsumer) -> None:
    client.lpush(QUEUE, "next year", "now")
    consumer, other = new_consumer(), new_consumer()
    year, now = consumer.claim({QUEUE: 2})
    run_command(client, *consumer.postpone_command(year.tag, 365 * 86_400.0))
    run_command(client, *consumer.postpone_command(now.tag, 0.0))
    (found,) = other.claim({QUEUE: 2})
    assert (found.raw, found.deliveries, found.retries) == (b"now", 0, 0)
    assert not client.exists(PLAIN.retries)
    delayed: list[Any] = client.zrange(PLAIN.delayed, 0, -1, withscores=True)
    ((_, due_ms),) = delayed
    assert abs(due_ms / 1000 - client.time()[0] - 365 * 86_400) < 60


def test_a_message_is_deferred_only_by_who_holds_it(client: redis.Redis, new_consumer: NewConsumer) -> None:
    client.lpush(QUEUE, "a")
    sleeper, other = new_consumer(), new_consumer()
    (found,) = sleeper.claim({QUEUE: 1})
    die(client, sleeper)
    other.reap()
    assert run_command(client, *sleeper.defer_command(found.tag, 0)) == 0
    assert client.llen(QUEUE) == 1
    assert not client.exists(PLAIN.delayed)


def test_any_claim_wakes_the_delayed_of_other_queues(client: redis.Redis, new_consumer: NewConsumer) -> None:
    client.lpush("infer.a", "a")
    consumer = new_consumer()
    (found,) = consumer.claim({"infer.a": 1})
    run_command(client, *consumer.defer_command(found.tag, 0))
    assert consumer.claim({"infer.b": 1}) == []
    assert client.llen("infer.a") == 1
    assert client.llen(PLAIN.doorbell("infer.a")) == 1
