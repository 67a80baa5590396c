"""Where messages go: exchanges of each type, their bindings, and what no queue wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
import pytest
import redis
from tests.queueing.functional.conftest import Reader

Read = Callable[..., list[Any]]


def send(
    connection: kombu.Connection, body: Any, exchange: kombu.Exchange, key: str = "", *queues: kombu.Queue
) -> None:
    connection.Producer().publish(body, exchange=exchange, routing_key=key, declare=list(queues))


def test_the_default_exchange_leads_to_the_queue_of_that_name(connection: kombu.Connection, read: Read) -> None:
    one, two = kombu.Queue("one"), kombu.Queue("two")
    send(connection, 1, kombu.Exchange(""), "one", one, two)
    assert read(1, one) == [1]
    assert read(0, two) == []


def test_a_direct_exchange_goes_by_the_whole_routing_key(connection: kombu.Connection, read: Read) -> None:
    prices = kombu.Exchange("prices", type="direct")
    up, down = (kombu.Queue(f"prices.{key}", prices, routing_key=key) for key in ("up", "down"))
    also_up = kombu.Queue("prices.copy", prices, routing_key="up")
    send(connection, 1, prices, "up", up, down, also_up)
    send(connection, 2, prices, "sideways", up, down, also_up)
    assert read(1, up) == [1]
    assert read(1, also_up) == [1]
    assert read(0, down) == []


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("order.*", ["order.new", "order.paid"], ["order", "order.new.eu", "orders.new"]),
        ("order.#", ["order.new", "order.new.eu"], ["orders.new"]),
        ("*.new", ["order.new"], ["order.old", "new"]),
        ("#", ["order", "order.new.eu"], []),
        ("order", ["order"], ["order.new"]),
    ],
)
def test_a_topic_exchange_goes_by_patterns(
    connection: kombu.Connection, read: Read, pattern: str, fits: list[str], fits_not: list[str]
) -> None:
    topic = kombu.Exchange("orders", type="topic")
    queue, all_of_it = kombu.Queue("some", topic, routing_key=pattern), kombu.Queue("all", topic, routing_key="#")
    for key in (*fits, *fits_not):
        send(connection, key, topic, key, queue, all_of_it)
    assert read(len(fits), queue) == fits
    assert read(len(fits) + len(fits_not), all_of_it) == [*fits, *fits_not]


def test_a_fanout_exchange_reaches_all_who_listen_and_keeps_nothing(connection: kombu.Connection) -> None:
    # Names of their own: kombu remembers in the process which queues are those of a fanout exchange.
    news = kombu.Exchange("news", type="fanout")
    send(connection, "before", news)
    with connection.clone() as one, connection.clone() as two:
        readers = [Reader(one, kombu.Queue("news.one", news)), Reader(two, kombu.Queue("news.two", news))]
        for reader in readers:
            reader.listen()
        send(connection, "now", news, "", kombu.Queue("news.one", news))
        for reader in readers:
            reader.listen()
            assert [message.payload for message in reader.messages] == ["now"]


def test_what_no_queue_wants_is_dropped(connection: kombu.Connection, client: redis.Redis, prefix: str) -> None:
    for kind in ("direct", "topic", "fanout"):
        send(connection, 1, kombu.Exchange(f"nobody.{kind}", type=kind), "key")
    assert [key for key in client.scan_iter() if not key.startswith((prefix + "headrace:bell").encode())] == []


def test_an_unbound_queue_gets_nothing_more(connection: kombu.Connection, read: Read) -> None:
    exchange = kombu.Exchange("prices", type="direct")
    queue, rest = (kombu.Queue(name, exchange, routing_key="up") for name in ("one", "rest"))
    send(connection, 1, exchange, "up", queue, rest)
    bound = queue(connection.default_channel)
    bound.delete()
    send(connection, 2, exchange, "up", rest)
    assert read(2, rest) == [1, 2]
    assert read(0, kombu.Queue("one")) == []


def test_many_messages_of_many_queues_arrive_once_and_in_order(connection: kombu.Connection, read: Read) -> None:
    queues = [kombu.Queue(f"queue.{n}") for n in range(5)]
    for number in range(40):
        for queue in queues:
            send(connection, [queue.name, number], kombu.Exchange(""), queue.name, queue)
    found = read(200, *queues)
    for queue in queues:
        assert [number for name, number in found if name == queue.name] == list(range(40))
