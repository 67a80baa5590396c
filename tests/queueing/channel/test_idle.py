"""An idle consumer costs next to nothing, and still finds what senders put into its queues that ring no doorbell."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import kombu
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from kombu.asynchronous import Hub
from kombu.asynchronous.hub import set_event_loop
from tests.queueing.commands import run_command
from tests.queueing.kombu_parts import transport_of
from tests.security.front import AUTHORITY, TlsFront

from headrace.queueing import connect, headrace_url
from headrace.queueing.channel.channel import MANY_QUEUES, Channel
from headrace.queueing.channel.tracking import ASKING_S, NEVER, Incomplete, Lookout, parse
from headrace.queueing.keys import PLAIN

#: How long a consumer waits until it would look by itself.
WAIT_S = 24.0

#: A message is seen within 50 ms. Later than this would mean that only the end of a wait brought it.
SOON_S = WAIT_S / 2

Turn = Callable[[Callable[[], bool]], None]


class Idle:
    """A consumer of some queues, driven by an event loop as a worker is, or by `drain_events`."""

    def __init__(self, url: str, queues: int, **options: Any) -> None:
        self.connection = kombu.Connection(headrace_url(url), transport_options=options)
        channel: object = self.connection.channel()
        assert isinstance(channel, Channel)
        self.channel = channel
        self.channel.basic_qos(0, 10, False)
        self.bodies: list[str] = []
        names = [kombu.Queue(f"q{number}") for number in range(queues)]
        self.consumer = kombu.Consumer(self.channel, names, on_message=self.receive)
        self.consumer.consume()

    def receive(self, message: Any) -> None:
        self.bodies.append(message.body.decode())
        message.ack()

    @property
    def is_told(self) -> bool:
        """Whether the server tells what changes, and has told that all is empty."""
        tracker = self.channel._lookout.tracker
        return tracker is not None and tracker.empty >= set(self.channel._active_queues)


@contextmanager
def idle(url: str, queues: int, *, in_loop: bool = True, **options: Any) -> Iterator[tuple[Idle, Turn]]:
    """Make a consumer; give it and what turns its loop until a condition holds."""
    consumer = Idle(url, queues, **{"polling_interval": WAIT_S, "socket_timeout": 3 * WAIT_S, **options})
    hub = Hub()
    if in_loop:
        set_event_loop(hub)
        consumer.connection.register_with_event_loop(hub)

    def turn(condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < give_up
            if in_loop:
                hub.run_once()
            else:
                with suppress(TimeoutError):
                    consumer.connection.drain_events(timeout=0.1)

    try:
        yield consumer, turn
    finally:
        consumer.connection.close()
        hub.close()
        set_event_loop(None)


def lasts(seconds: float) -> Callable[[], bool]:
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def push(client: redis.Redis, key: str, body: str) -> None:
    """Send as a sender does that knows nothing of doorbells."""
    client.lpush(key, json.dumps({"body": body, "properties": {}, "headers": {}}))


def assert_found_soon(client: redis.Redis, consumer: Idle, turn: Turn, key: str, body: str = "silent") -> None:
    count = len(consumer.bodies)
    sent_at = time.monotonic()
    push(client, key, body)
    turn(lambda: len(consumer.bodies) > count)
    assert consumer.bodies[-1] == body
    assert time.monotonic() - sent_at < SOON_S


@pytest.mark.parametrize("queues", [1, MANY_QUEUES + 4])
@pytest.mark.parametrize("in_loop", [True, False], ids=["loop", "drain"])
def test_an_idle_consumer_asks_for_nothing_and_finds_what_comes(
    any_url: str, client: redis.Redis, in_loop: bool, queues: int
) -> None:
    with idle(any_url, queues, in_loop=in_loop) as (consumer, turn):
        turn(lambda: consumer.is_told)
        turn(lasts(0.2))
        before = client.info("stats")["total_commands_processed"]
        turn(lasts(4))
        # At most a wait that ends and begins; it was 20 claims a second, of some eight commands a queue.
        assert client.info("stats")["total_commands_processed"] - before < 20
        for number in range(3):
            assert_found_soon(client, consumer, turn, f"q{(number * 7) % queues}", f"body {number}")
        turn(lambda: consumer.is_told)
        assert_found_soon(client, consumer, turn, f"q{queues - 1}")


def test_a_loop_of_drain_events_never_waits_without_end(broker_url: str) -> None:
    """A wait of less than nothing is refused by select, which gevent has, and lasts for ever with epoll."""
    with idle(broker_url, 1, in_loop=False) as (consumer, turn):
        poller = transport_of(consumer.connection).cycle.poller
        waits: list[float | None] = []
        poll = poller.poll
        poller.poll = lambda timeout: (waits.append(timeout), poll(timeout))[1]  # type: ignore[func-returns-value]
        turn(lambda: consumer.is_told)
        turn(lasts(0.5))
        del poller.poll
    assert waits
    assert all(wait is not None and 0 <= wait <= 1 for wait in waits)


def test_what_comes_before_the_server_tells_is_found_too(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client, idle(broker_url, 1) as (consumer, turn):
        turn(lambda: bool(consumer.channel._in_poll))
        assert consumer.channel._lookout.tracker is None
        assert_found_soon(client, consumer, turn, "q0")


@pytest.mark.parametrize("step", [3, 9])
def test_a_list_of_another_priority_and_a_prefix_are_seen(broker_url: str, step: int) -> None:
    with (
        redis.Redis.from_url(broker_url) as client,
        idle(broker_url, 2, global_keyprefix="shop:") as (consumer, turn),
    ):
        turn(lambda: consumer.is_told)
        assert_found_soon(client, consumer, turn, f"shop:q1\x06\x16{step}")


def test_a_connection_that_was_cut_is_done_without_and_a_new_one_made(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.queueing.channel.tracking.RETRY_S", 0.5)
    with redis.Redis.from_url(broker_url) as client, idle(broker_url, 1) as (consumer, turn):
        turn(lambda: consumer.is_told)
        first = consumer.channel._lookout.tracker
        (own,) = [each for each in client.client_list() if "t" in each["flags"] and each["db"] == _database(broker_url)]
        client.client_kill_filter(_id=own["id"])
        turn(lambda: consumer.channel._lookout.tracker is not first)
        assert_found_soon(client, consumer, turn, "q0")
        turn(lambda: consumer.is_told)
        assert_found_soon(client, consumer, turn, "q0")


def test_the_server_tells_through_tls_too(broker_url: str) -> None:
    host, port = broker_url.removeprefix("redis://").partition("/")[0].split(":")
    front = TlsFront(lambda: socket.create_connection((host, int(port))))
    url = f"rediss://localhost:{front.port}/{_database(broker_url)}?ssl_ca_certs={AUTHORITY}"
    try:
        with redis.Redis.from_url(broker_url) as client, idle(url, 1) as (consumer, turn):
            for _ in range(2):
                turn(lambda: consumer.is_told)
                assert_found_soon(client, consumer, turn, "q0")
    finally:
        front.close()


def _database(url: str) -> str:
    return url.rpartition("/")[2]


def test_a_server_that_refuses_to_tell_is_asked(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "headrace.queueing")
    with redis.Redis.from_url(broker_url) as client:
        client.acl_setuser("dan", enabled=True, passwords=["+pass"], keys=["*"], channels=["*"], categories=["+@all"])
        run_command(client, "ACL", "SETUSER", "dan", "-client|tracking")
        with idle(broker_url.replace("redis://", "redis://dan:pass@"), 1) as (consumer, turn):
            turn(lambda: "queueing.no_tracking" in caplog.text)
            assert_found_soon(client, consumer, turn, "q0")
            turn(lasts(1))
        assert caplog.text.count("queueing.no_tracking") == 1
        client.acl_deluser("dan")


def test_an_idle_consumer_finds_what_a_flush_did_not_take(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client, idle(broker_url, 1) as (consumer, turn):
        turn(lambda: consumer.is_told)
        client.flushdb()
        assert_found_soon(client, consumer, turn, "q0")


def test_a_delayed_message_that_is_due_wakes_an_idle_consumer(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client, connect(broker_url) as own:
        with idle(broker_url, 1, polling_interval=3.5) as (consumer, turn):
            turn(lambda: consumer.is_told)
            push(client, "q0", "later")
            other = consumer.channel.consumer.__class__(own, lease_s=60)
            (found,) = other.claim({"q0": 1})
            consumer.bodies.clear()
            run_command(client, *other.postpone_command(found.tag, 1.5))
            # An idle consumer learns of it with the end of its wait, or sooner.
            turn(lambda: consumer.channel.consumer.next_due < NEVER or bool(consumer.bodies))
            turn(lambda: bool(consumer.bodies))
            assert consumer.bodies == ["later"]
        with idle(broker_url, 1) as (consumer, turn):
            push(client, "q0", "later")
            (found,) = other.claim({"q0": 1})
            run_command(client, *other.postpone_command(found.tag, 1.5))
            due = time.monotonic() + 1.5
            turn(lambda: bool(consumer.bodies))  # it knows when it is due, as its first claim told
            assert -0.2 < time.monotonic() - due < SOON_S
        assert not client.exists(PLAIN.delayed)


# -- pure --------------------------------------------------------------------------------------------------------------


class Tracker:
    """What a Lookout knows of a connection; asks nobody."""

    def __init__(self) -> None:
        self.empty: set[str] = set()
        self.version = 0
        self.is_asking = False
        self.asked: list[set[str]] = []

    def ask(self, queues: Any) -> None:
        self.asked.append(set(queues))
        self.is_asking = True

    def answer(self, *empty: str) -> None:
        self.is_asking = False
        self.empty = set(empty)
        self.version += 1


def test_looks_are_regular_until_the_server_tells_and_then_follow_changes_only() -> None:
    tracker = Tracker()
    lookout = Lookout(lambda: tracker, lambda tracker: None)  # type: ignore[arg-type,return-value]
    awaited = {"a": 1, "b": 1}
    now = 100.0
    assert lookout.next_look(awaited, now) <= now
    assert lookout.look(awaited, now)  # claim
    assert lookout.next_look(awaited, now) == now + 0.05
    assert lookout.look(awaited, now + 0.05)
    now += ASKING_S
    assert not lookout.look(awaited, now)
    assert tracker.asked == [{"a", "b"}]
    assert lookout.next_look(awaited, now) == NEVER  # the answer will come
    tracker.answer("a")
    assert lookout.next_look(awaited, now + 0.01) == now + 0.05  # "b" held something
    assert not lookout.look(awaited, now + 0.05)
    assert tracker.asked[1:] == [{"b"}]
    tracker.answer("a", "b")
    assert lookout.next_look(awaited, now + 0.06) == NEVER
    tracker.answer("b")  # "a" has changed
    assert lookout.next_look(awaited, now + 9) == now + 9.02
    assert lookout.next_look(awaited, now + 9.01) == now + 9.02
    assert lookout.next_look({"b": 1}, now + 9.01) == NEVER


def encode(value: Any) -> bytes:
    """Write a value as RESP3 does."""
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%s\r\n" % (len(value), value)
    if value is None:
        return b"_\r\n"
    kind = b">" if isinstance(value, tuple) else b"*"
    return b"%s%d\r\n%s" % (kind, len(value), b"".join(map(encode, value)))


SIMPLE = st.none() | st.integers() | st.binary(max_size=20)
NESTED = st.lists(SIMPLE | st.lists(SIMPLE, max_size=3) | st.lists(SIMPLE, max_size=3).map(tuple), max_size=3)
VALUES = SIMPLE | NESTED | NESTED.map(tuple)


@given(st.lists(VALUES, min_size=1, max_size=5), st.integers(0, 200))
def test_answers_are_read_however_they_are_cut(values: list[Any], cut: int) -> None:
    data = b"".join(map(encode, values))
    at, read = 0, []
    for end in (min(cut, len(data)), len(data)):
        with suppress(Incomplete):
            while True:
                value, at = parse(data[:end], at)
                read.append(value)
    assert read == values
    assert at == len(data)


def test_simple_strings_and_errors_are_read() -> None:
    assert parse(b"+PONG\r\n", 0) == (b"PONG", 7)
    error, _ = parse(b"-NOPERM no\r\n", 0)
    assert str(error) == "NOPERM no"
    with pytest.raises(redis.exceptions.InvalidResponse):
        parse(b"~1\r\n", 0)


def test_a_process_with_many_open_files_is_told_of_changes_too(broker_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as files, connect(broker_url) as client:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while files.enter_context(open(os.devnull, "rb")).fileno() < 1100:  # noqa: PTH123
            pass  # select(2) knows no descriptor from 1024 on
        with idle(broker_url, 1, in_loop=False) as (consumer, turn):
            turn(lambda: consumer.is_told)
            tracker = consumer.channel._lookout.tracker
            assert tracker is not None
            assert tracker.fd > 1024
            client.lpush("q0", '{"body": "1", "properties": {"delivery_info": {}, "delivery_tag": "1"}, "headers": {}}')
            turn(lambda: consumer.bodies == ["1"])
