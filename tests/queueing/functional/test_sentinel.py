"""Servers that Sentinels watch: the URL names the Sentinels, and a failover loses no message that was replicated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from tests.eventually import eventually
from tests.queueing.kombu_parts import transport_of
from tests.sentinels import Watched

from headrace.contracts.errors import ConfigurationError

OPTIONS = {"master_name": Watched.NAME, "socket_timeout": 2.0}


def receive(connection: kombu.Connection) -> list[Any]:
    """Take one message, over as many connections as it takes."""
    found: list[Any] = []

    def on_message(body: Any, message: Any) -> None:
        message.ack()
        found.append(body)

    def attempt() -> bool:
        with suppress(TimeoutError, *connection.connection_errors):
            with connection.Consumer([kombu.Queue("tasks")], callbacks=[on_message]):
                connection.drain_events(timeout=1)
            return bool(found)
        connection.close()
        return False

    eventually(attempt, 30, "a message")
    return found


def test_messages_go_through_the_master_that_sentinels_name_also_after_a_failover(watched: Watched) -> None:
    url = watched.url("headrace+sentinel")
    with kombu.Connection(url, transport_options=OPTIONS) as connection:
        producer = connection.Producer()
        producer.publish("one", routing_key="tasks", declare=[kombu.Queue("tasks")])
        with redis.Redis(port=watched.master) as master:
            assert master.llen("tasks") == 1
        assert receive(connection) == ["one"]
        producer.publish("two", routing_key="tasks")
        with redis.Redis(port=watched.replica) as replica:
            eventually(lambda: replica.llen("tasks") == 1, 30, "the replica to have it")
        watched.kill_master()
        assert receive(connection) == ["two"]
        with connection.clone() as copy:
            copy.Producer().publish("three", routing_key="tasks", retry=True)
        assert receive(connection) == ["three"]


@pytest.mark.parametrize(
    "written",
    [
        lambda watched: f"headrace+sentinel://127.0.0.1:{watched.sentinels[0]}/0?master_name=shop",
        lambda watched: ";".join(
            (
                f"headrace+sentinel://127.0.0.1:{watched.sentinels[0]}",
                f"sentinel://127.0.0.1:{watched.sentinels[1]}/0?master_name=shop",
            )
        ),
        lambda watched: [f"headrace+sentinel://127.0.0.1:{port}/0?master_name=shop" for port in watched.sentinels],
        lambda watched: (
            f"headrace+sentinel://127.0.0.1:1/0;headrace+sentinel://127.0.0.1:{watched.sentinels[0]}/0?master_name=shop"
        ),
    ],
)
def test_urls_of_sentinels_may_be_written_in_many_ways(
    watched: Watched, written: Callable[[Watched], str | list[str]]
) -> None:
    url: Any = written(watched)  # kombu takes a list too, whatever its stubs say
    with kombu.Connection(url) as connection:
        connection.Producer().publish(1, routing_key="tasks")
        assert receive(connection) == [1]
        with connection.clone() as copy:
            copy.connect()
            assert copy.as_uri() == connection.as_uri()
            assert transport_of(copy).Channel is transport_of(connection).Channel


def test_an_ordinary_app_sends_and_reads_through_its_pools(watched: Watched) -> None:
    with Celery(broker=f"{watched.url('headrace+sentinel')}?master_name={Watched.NAME}") as app:
        for number in range(3):
            app.send_task("add", (number, 1))
        pool: Any = app.pool  # celery's stubs take it for one of producers
        with pool.acquire() as connection:
            assert connection.default_channel.queue_declare("celery", passive=True).message_count == 3
            assert connection.as_uri(include_password=True) == f"headrace+sentinel://127.0.0.1:{watched.sentinels[0]}/0"
            assert connection.transport_cls == "headrace+sentinel"
    with redis.Redis(port=watched.master) as master:
        assert master.llen("celery") == 3


@pytest.mark.parametrize("url", ["headrace+sentinel://127.0.0.1:26379", "headraces+sentinel://127.0.0.1:26379/0"])
def test_sentinels_without_a_name_to_ask_for_are_refused(url: str) -> None:
    with (
        kombu.Connection(url) as connection,
        pytest.raises(ConfigurationError, match="needs the name of the server that they watch") as caught,
    ):
        connection.connect()
    assert "\n" not in caught.value.message


def test_an_unknown_name_is_a_connection_error(watched: Watched) -> None:
    url, options = watched.url("headrace+sentinel"), {"master_name": "other"}
    with (
        kombu.Connection(url, transport_options=options) as connection,
        pytest.raises(connection.connection_errors, match="other"),
    ):
        connection.connect()
