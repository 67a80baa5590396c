"""Priorities: an ordinary app keeps the meaning that they have on `redis://`, the queues of models keep theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel as KombuChannel
from tests.queueing.commands import run_command
from tests.queueing.kombu_parts import channel_of

from headrace.contracts.errors import ConfigurationError
from headrace.queueing import ClaimingConsumer, connect, dead_letters, headrace_url, queue_stats, retry_letter
from headrace.queueing.keys import Keys, attach
from headrace.queueing.lists import DEFAULT_LISTS, Lists, lists_of_options

ORDINARY, MODEL = "celery", "infer.double"
ALL = [4, 0, 9, 3, 6, 8, 2]


@contextmanager
def app(url: str, **options: Any) -> Iterator[kombu.Connection]:
    with kombu.Connection(url, transport_options=options) as connection:
        yield connection


def publish(connection: kombu.Connection, queue: str) -> None:
    for priority in ALL:
        connection.Producer().publish(priority, routing_key=queue, priority=priority, declare=[kombu.Queue(queue)])


def take(connection: kombu.Connection, queue: str) -> list[Any]:
    simple = connection.SimpleQueue(queue)
    found = []
    for _ in ALL:
        message = simple.get(timeout=5)
        found.append(message.payload)
        message.ack()
    simple.close()
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"priority_steps": list(range(10))},
        {"priority_steps": [0, 5], "sep": ":"},
        {"priority_steps": [2, 7]},
        {"sep": "--"},
    ],
)
def test_an_ordinary_queue_is_served_as_on_redis(any_url: str, options: dict[str, Any]) -> None:
    with app(any_url, **options) as plain, app(headrace_url(any_url), **options) as ours:
        publish(plain, "one")
        expected = take(plain, "one")
        for sender, taker in ((ours, ours), (plain, ours), (ours, plain)):
            publish(sender, ORDINARY)
            assert take(taker, ORDINARY) == expected


@pytest.mark.parametrize("options", [{}, {"priority_steps": list(range(10))}, {"priority_steps": [0, 5], "sep": ":"}])
def test_a_model_is_served_most_urgent_first_whatever_the_app_says_of_its_own_queues(
    any_url: str, client: redis.Redis, options: dict[str, Any]
) -> None:
    with app(headrace_url(any_url), **options) as connection:
        publish(connection, MODEL)
        assert [client.llen(DEFAULT_LISTS.list_of(MODEL, step)) for step in (9, 6, 3, 0)] == [1, 2, 2, 2]
        assert channel_of(connection)._size(MODEL) == 7
        assert take(connection, MODEL) == [9, 6, 8, 4, 3, 0, 2]
        assert channel_of(connection)._size(MODEL) == 0


def test_an_option_turns_the_order_of_ordinary_queues_around(any_url: str) -> None:
    with app(headrace_url(any_url), priority_order="highest_first") as connection:
        publish(connection, ORDINARY)
        assert take(connection, ORDINARY) == [9, 6, 8, 4, 3, 0, 2]
        publish(connection, MODEL)
        assert take(connection, MODEL) == [9, 6, 8, 4, 3, 0, 2]


@pytest.mark.parametrize("options", [{}, {"sep": ":", "priority_steps": [0, 5]}])
def test_what_comes_back_lies_where_it_came_from(any_url: str, client: redis.Redis, options: dict[str, Any]) -> None:
    with app(headrace_url(any_url), **options) as connection:
        publish(connection, ORDINARY)
        before = {key: client.lrange(key, 0, -1) for key in client.scan_iter("celery*")}
        channel_of(connection).consumer.claim({ORDINARY: 9})
        assert list(client.scan_iter("celery*")) == []
        channel_of(connection).consumer.release()
        assert {key: client.lrange(key, 0, -1) for key in client.scan_iter("celery*")} == before
        assert channel_of(connection)._purge(ORDINARY) == len(ALL)
        assert list(client.scan_iter("celery*")) == []


def test_a_dead_letter_goes_back_to_the_list_it_came_from_though_the_command_knows_no_options(
    any_url: str, client: redis.Redis
) -> None:
    attach(client.connection_pool, Keys(lists=Lists(":", (0, 5))))
    client.lpush("celery:5", "message")
    consumer = ClaimingConsumer(client, lease_s=60)
    (delivery,) = consumer.claim({ORDINARY: 1})
    assert (delivery.tag, delivery.priority_step) == ("1:celery:5", 5)
    consumer.dead_letter(delivery.tag, "test")
    with connect(any_url) as command:
        (letter,) = dead_letters(command)
        assert (letter.queue, letter.step) == (ORDINARY, 5)
        assert retry_letter(command, letter.id)
    assert client.lrange("celery:5", 0, -1) == [b"message"]


def test_messages_that_wait_for_their_time_are_purged_with_their_queue(any_url: str, client: redis.Redis) -> None:
    with app(headrace_url(any_url)) as connection:
        channel = channel_of(connection)
        for queue in (MODEL, "infer.other"):
            publish(connection, queue)
        for delivery in channel.consumer.claim({MODEL: 3, "infer.other": 2}):
            run_command(client, *channel.consumer.postpone_command(delivery.tag, 3600))
        assert kombu.Queue(MODEL)(channel).purge() == len(ALL)
        (stats,) = queue_stats(client)
        assert (stats.queue, stats.waiting, stats.delayed) == ("infer.other", len(ALL) - 2, 2)
        assert kombu.Queue("infer.other")(channel).purge() == len(ALL)
        assert queue_stats(client) == []
        assert not client.exists(channel.keys.delayed, channel.keys.delayed_messages)


@pytest.mark.parametrize(
    "options",
    [
        {"sep": ""},
        {"sep": 3},
        {"sep": "a1"},
        {"priority_steps": []},
        {"priority_steps": 3},
        {"priority_steps": [3, 0]},
        {"priority_steps": [0, 0]},
        {"priority_steps": [0, "3"]},
        {"priority_steps": [0, 2.5]},
        {"priority_steps": [-1, 0]},
        {"priority_steps": [True]},
        {"priority_order": "desc"},
        {"priority_order": None},
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(broker_url: str, options: dict[str, Any]) -> None:
    (name,) = options
    with app(headrace_url(broker_url), **options) as connection:
        with pytest.raises(ConfigurationError, match=f"the transport option {name} is .*; it must be ") as caught:
            connection.connect()
        assert "\n" not in caught.value.message


@given(
    st.sampled_from([DEFAULT_LISTS, Lists(":", (0, 5)), Lists("--", tuple(range(10)), highest_first=True)]),
    st.sampled_from(["celery", "infer.double", "a.b", "x1", "infer.", "infer.a:b", "a\x06b"]),
    st.integers(0, 9),
)
def test_a_list_names_its_queue_and_step(lists: Lists, queue: str, priority: int) -> None:
    for step in lists.steps_of(queue):
        assert lists.split(lists.list_of(queue, step)) == (queue, step)
        assert lists.queue_of(lists.list_of(queue, step)) == queue


@given(st.lists(st.integers(0, 255), min_size=1, max_size=20, unique=True).map(sorted))
def test_steps_are_those_of_kombu(steps: list[int]) -> None:
    channel: Any = KombuChannel.__new__(KombuChannel)
    channel.priority_steps = steps
    lists = lists_of_options(channel.sep, steps, "lowest_first")
    assert {lists.list_of("q", step) for step in lists.in_order} == {channel._q_for_pri("q", step) for step in steps}


@pytest.mark.parametrize("sep", ["'", "\\", "\n", "é", "]]", "<LIST>", "%d"])
def test_any_separator_is_safe_in_a_script(client: redis.Redis, sep: str) -> None:
    lists = Lists(sep, (0, 7))
    attach(client.connection_pool, Keys(lists=lists))
    client.lpush(lists.list_of("q", 7), "urgent")
    consumer = ClaimingConsumer(client, lease_s=60)
    (delivery,) = consumer.claim({"q": 1})
    consumer.release([delivery.tag])
    assert client.lrange(lists.list_of("q", 7), 0, -1) == [b"urgent"]
    assert client.exists(Keys().doorbell("q"))
