"""Key prefixes: what shares a server without seeing each other, and what shares queues with plain `redis://` peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis
from tests.eventually import eventually
from tests.queueing.commands import run_command
from tests.queueing.kombu_parts import channel_of

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.settings import load_settings
from headrace.queueing import ClaimingConsumer, RunningMarker, connect, dead_letters, headrace_url, keys, queue_stats
from headrace.queueing.admin.dead_letters import LetterFilter, drop_letter, find_letters, retry_letter
from headrace.queueing.consumer.serving import is_served, prefixes_served
from headrace.queueing.submission import Submitter

QUEUE = "infer.double"
TASKS = kombu.Queue("tasks", kombu.Exchange("tasks"), routing_key="tasks")
NEWS = kombu.Exchange("news", type="fanout")

BAD = [
    "app*",
    "a?",
    "[a]",
    "{app}:",
    "a b",
    "a\n",
    "a'",
    'a"',
    "a\\",
    "a^",
    "é:",
    "<LIST>",
    "x" * 65,
]


@pytest.fixture
def other(any_url: str) -> Iterator[redis.Redis]:
    """A client of the key space `b:`."""
    with connect(any_url, prefix="b:") as client:
        yield client


@pytest.fixture
def prefixed(any_url: str) -> Iterator[redis.Redis]:
    """A client of the key space `a:`."""
    with connect(any_url, prefix="a:") as client:
        yield client


def outside(client: redis.Redis, prefix: str) -> set[str]:
    """The keys that do not lie under a prefix, but for the one that names the prefixes themselves."""
    found: list[bytes] = client.keys()  # type: ignore[assignment]
    return {key.decode() for key in found if not key.startswith(prefix.encode())} - {keys.PREFIXES}


def test_all_that_a_consumer_writes_lies_under_its_prefix(client: redis.Redis, prefixed: redis.Redis) -> None:
    consumer = ClaimingConsumer(prefixed, lease_s=60)
    consumer.queues.add(QUEUE)
    Submitter(prefixed).submit(QUEUE, 9, [b"one", b"two", b"three", b"four"])
    one, two, three, four = consumer.claim({QUEUE: 9})
    assert [delivery.tag for delivery in (one, four)] == [f"{n}:{keys.PLAIN.queue_list(QUEUE, 9)}" for n in (1, 4)]
    mark = RunningMarker(prefixed, "worker")
    mark.set({consumer.id: [one.tag]})
    run_command(prefixed, *consumer.defer_command(two.tag, 60))
    consumer.dead_letter(three.tag, "test")
    consumer.release([four.tag])
    mark.close()

    assert outside(client, "a:") == set()
    (stats,) = queue_stats(prefixed)
    assert (stats.waiting, stats.in_flight, stats.delayed, stats.dead) == (1, 1, 1, 1)
    assert stats.waiting_by_step == {9: 1, 6: 0, 3: 0, 0: 0}
    consumer.close()
    assert outside(client, "a:") == set()


def test_two_prefixes_and_none_do_not_see_each_other(
    client: redis.Redis, prefixed: redis.Redis, other: redis.Redis
) -> None:
    spaces = {"a": prefixed, "b": other, "plain": client}
    consumers = {name: ClaimingConsumer(space, lease_s=60) for name, space in spaces.items()}
    for name, space in spaces.items():
        Submitter(space).submit(QUEUE, 0, [name.encode(), b"dead"])
    for name, space in spaces.items():
        assert queue_stats(space)[0].waiting == 2
        first, dead = consumers[name].claim({QUEUE: 9})
        assert first.raw == name.encode()
        consumers[name].dead_letter(dead.tag, f"of {name}")
    for name, space in spaces.items():
        assert [letter.reason for letter in find_letters(space, LetterFilter(queue=QUEUE))] == [f"of {name}"]
    (letter,) = dead_letters(prefixed)
    assert not retry_letter(other, letter.id)
    assert not drop_letter(client, letter.id)
    assert retry_letter(prefixed, letter.id)
    assert [delivery.raw for delivery in consumers["a"].claim({QUEUE: 9})] == [b"dead"]


def test_a_dead_consumer_is_reaped_under_its_own_prefix_only(
    client: redis.Redis, prefixed: redis.Redis, other: redis.Redis
) -> None:
    Submitter(prefixed).submit(QUEUE, 3, [b"message"])
    ClaimingConsumer(prefixed, lease_s=0.001).claim({QUEUE: 1})
    assert ClaimingConsumer(other, lease_s=60).reap() == 0
    assert ClaimingConsumer(client, lease_s=60).reap() == 0
    heir = ClaimingConsumer(prefixed, lease_s=60)
    eventually(heir.reap, 30, "the end of the lease")
    (delivery,) = heir.claim({QUEUE: 1})
    assert (delivery.raw, delivery.deliveries, delivery.priority_step) == (b"message", 1, 3)
    heir.ack([delivery.tag])
    assert outside(client, "a:") == set()


def test_whoever_waits_under_the_wrong_prefix_can_learn_the_right_one(
    client: redis.Redis, prefixed: redis.Redis, other: redis.Redis
) -> None:
    consumers = {name: ClaimingConsumer(space, lease_s=60) for name, space in (("a", prefixed), ("", client))}
    assert prefixes_served(other, QUEUE) == []
    consumers["a"].queues.add(QUEUE)
    assert is_served(prefixed, QUEUE)
    assert not is_served(client, QUEUE)
    assert prefixes_served(other, QUEUE) == prefixes_served(client, QUEUE) == ["a:"]
    assert prefixes_served(prefixed, QUEUE) == prefixes_served(other, "infer.more") == []
    consumers[""].queues.add(QUEUE)
    assert prefixes_served(other, QUEUE) == ["", "a:"]
    for consumer in consumers.values():
        consumer.close()
    assert prefixes_served(other, QUEUE) == []


def app(url: str, prefix: str = "a:") -> kombu.Connection:
    return kombu.Connection(url, transport_options={"global_keyprefix": prefix})


def consume(connection: kombu.Connection, queue: kombu.Queue, count: int = 0) -> list[Any]:
    """Take so many messages, and what comes within a short time after them."""
    found: list[Any] = []

    def receive(body: Any, message: Any) -> None:
        found.append(body)
        message.ack()

    with kombu.Consumer(connection, [queue], callbacks=[receive], accept=["json"]):
        while True:
            try:
                connection.drain_events(timeout=0.5 if len(found) >= count else 60)
            except TimeoutError:
                return found


@pytest.mark.parametrize(("sender", "taker"), [("headrace", "redis"), ("redis", "headrace"), ("headrace", "headrace")])
def test_peers_of_both_transports_share_the_queues_of_a_prefix(
    any_url: str, client: redis.Redis, sender: str, taker: str
) -> None:
    urls = {"redis": any_url, "headrace": headrace_url(any_url)}
    with app(urls[sender]) as sending, app(urls[taker]) as taking, app(urls[taker], "b:") as stranger:
        for connection in (sending, taking, stranger):
            kombu.Queue("tasks", TASKS.exchange, routing_key="tasks", channel=connection.default_channel).declare()
        producer = sending.Producer()
        for priority in (0, 3, 9):
            producer.publish(priority, exchange=TASKS.exchange, routing_key="tasks", priority=priority)
        assert client.llen("a:tasks") == 1
        assert client.smembers("a:_kombu.binding.tasks") == client.smembers("b:_kombu.binding.tasks")
        assert consume(stranger, TASKS) == []
        assert sorted(consume(taking, TASKS, 3)) == [0, 3, 9]
    assert outside(client, "a:") == {"b:_kombu.binding.tasks", "b:_kombu.binding_permanent.tasks"}


def listen(*connections: kombu.Connection) -> None:
    """Take what comes to each connection, until nothing came for a while."""
    for connection in connections:
        with suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0.5)


@pytest.mark.parametrize(("sender", "taker"), [("headrace", "redis"), ("redis", "headrace")])
def test_broadcasts_reach_the_peers_of_a_prefix_only(any_url: str, sender: str, taker: str) -> None:
    urls = {"redis": any_url, "headrace": headrace_url(any_url)}
    with app(urls[sender]) as sending, app(urls[taker]) as taking, app(urls[taker], "b:") as stranger:
        heard: dict[str, list[Any]] = {"taker": [], "stranger": []}
        with (
            kombu.Consumer(
                taking, [kombu.Queue("news.t", NEWS)], callbacks=[lambda body, _: heard["taker"].append(body)]
            ),
            kombu.Consumer(
                stranger, [kombu.Queue("news.s", NEWS)], callbacks=[lambda body, _: heard["stranger"].append(body)]
            ),
        ):
            listen(taking, stranger)  # the first poll subscribes
            sending.Producer().publish("hear", exchange=NEWS, declare=[NEWS])
            while not heard["taker"]:
                taking.drain_events(timeout=60)
            listen(taking, stranger)
        assert heard == {"taker": ["hear"], "stranger": []}


def test_sizes_purges_and_expiring_queues_stay_under_the_prefix(any_url: str, client: redis.Redis) -> None:
    queue = kombu.Queue("short", expires=30)
    with app(headrace_url(any_url)) as connection:
        channel = channel_of(connection)
        bound = queue(channel)
        bound.declare()
        connection.Producer().publish("a", routing_key="short", priority=3)
        assert 0 < int(client.pttl("a:" + keys.PLAIN.queue_list("short", 3))) <= 30_000
        assert channel.queue_declare("short", passive=True).message_count == 1
        assert bound.purge() == 1
        assert outside(client, "a:") == set()


@pytest.mark.parametrize("prefix", BAD)
def test_a_prefix_that_means_something_to_the_server_is_refused(
    broker_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        kombu.Connection(headrace_url(broker_url), transport_options={"global_keyprefix": prefix}) as connection,
        pytest.raises(ConfigurationError, match="transport option global_keyprefix is wrong: a key prefix holds"),
    ):
        connection.connect()
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", prefix)
    with pytest.raises(ConfigurationError, match="HEADRACE_KEY_PREFIX is wrong: a key prefix holds up to 64") as caught:
        load_settings()
    assert "\n" not in caught.value.message


def test_an_empty_prefix_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KEY_PREFIX", "")
    assert load_settings().key_prefix == ""
