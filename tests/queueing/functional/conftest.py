"""Connections of the transport as an app opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import kombu
import pytest
import redis

from headrace.queueing import headrace_url

#: Longest wait for something that should happen at once.
PATIENCE_S = 30.0


@pytest.fixture(params=["", "shop:"], ids=["plain", "prefixed"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(broker_url: str, prefix: str) -> Iterator[kombu.Connection]:
    """A connection of an app, without a key prefix and with one."""
    options = {"global_keyprefix": prefix} if prefix else {}
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        yield connection


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


class Reader:
    """Takes from queues what comes."""

    def __init__(self, connection: kombu.Connection, *queues: kombu.Queue, settle: str = "ack") -> None:
        """settle: the method of a message that ends it; "" leaves it open."""
        self.messages: list[Any] = []
        self._connection = connection
        self._settle = settle
        self._consumer = connection.Consumer(list(queues), callbacks=[self._receive], accept=["json", "text/plain"])

    def _receive(self, body: Any, message: Any) -> None:
        self.messages.append(message)
        if self._settle:
            getattr(message, self._settle)()

    def read(self, count: int) -> list[Any]:
        """Take this many messages and no more, and return their bodies; fails when fewer come."""
        self.messages.clear()
        with self._consumer:
            while len(self.messages) < count:
                self._connection.drain_events(timeout=PATIENCE_S)
            self._expect_silence()
        return [message.payload for message in self.messages]

    def _expect_silence(self) -> None:
        before = len(self.messages)
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0.3)
        assert len(self.messages) == before, f"too many: {[message.payload for message in self.messages]}"

    def listen(self) -> None:
        """Subscribe, where messages are broadcast and not kept."""
        self._consumer.consume()
        with suppress(TimeoutError):
            while True:
                self._connection.drain_events(timeout=0.3)


@pytest.fixture
def read(connection: kombu.Connection) -> Callable[..., list[Any]]:
    """`read(3, queue, …)` takes three messages of queues, acknowledges them and returns their bodies."""
    return lambda count, *queues, settle="ack": Reader(connection, *queues, settle=settle).read(count)
