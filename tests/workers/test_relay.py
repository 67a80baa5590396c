"""When a relay looks for what the broker may have lost, with a clock of the test's own; and what wakes it."""

from __future__ import annotations

import select
import uuid
from collections.abc import Callable, Iterator

import numpy as np
import psycopg
import pytest
import redis
from tests.eventually import eventually

from headrace.contracts import Settings
from headrace.producers import Client
from headrace.results_store.durable.relay_store import RelayStore
from headrace.workers.relay import SETTLED_S, Recovery, Relay


@pytest.fixture
def relay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay that isn't started yet, and won't look again before the test is over unless something wakes it."""
    monkeypatch.setattr("headrace.workers.relay.LOOK_S", 3600.0)
    relay = Relay(settings)
    yield relay
    relay.close(30)


@pytest.fixture
def commit(settings: Settings) -> Iterator[Callable[[], None]]:
    """Submit a request as part of an application's transaction, and commit."""
    with Client(settings) as client, psycopg.connect(settings.require_database_url()) as connection:

        def submit() -> None:
            with connection.transaction():
                client.submit("double", {"x": np.ones((1, 4), np.float32)}, connection=connection)

        yield submit


@pytest.fixture
def sent(settings: Settings) -> Iterator[Callable[[], int]]:
    """How many requests the broker has."""
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        yield lambda: broker.llen("infer.double")


def test_the_word_of_a_commit_is_enough(relay: Relay, commit: Callable[[], None], sent: Callable[[], int]) -> None:
    relay.start()
    for number in range(1, 6):
        commit()
        eventually(lambda number=number: sent() == number, 60, f"commit {number} to be sent")  # type: ignore[misc]


def test_a_commit_whose_word_comes_while_the_relay_asks_something_else_wakes_it(
    relay: Relay, commit: Callable[[], None], sent: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied: list[uuid.UUID] = []
    tidy = RelayStore.tidy

    def tidy_after_a_commit(store: RelayStore, after: uuid.UUID) -> uuid.UUID:
        if not tidied:
            commit()
            # The word is there when the query begins, and is read with its answer.
            eventually(lambda: select.select([store.fileno() or -1], [], [], 0)[0], 60, "the word of the commit")
        tidied.append(after)
        return tidy(store, after)

    monkeypatch.setattr(RelayStore, "tidy", tidy_after_a_commit)
    relay.start()
    eventually(lambda: sent() == 1, 60, "the request to be sent")


def test_a_broker_that_is_known_to_hold_all_is_not_looked_at() -> None:
    recovery = Recovery()
    assert not recovery.needed("a", "a", 0.0)
    assert not recovery.settled("a", "a")


def test_another_broker_is_looked_at_twice_before_it_is_remembered() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    assert not recovery.settled("b", "a")
    recovery.done(103.0)
    assert not recovery.settled("b", "a")
    assert not recovery.needed("b", "a", 103.0 + SETTLED_S - 1)
    assert recovery.needed("b", "a", 103.0 + SETTLED_S)
    recovery.done(103.0 + SETTLED_S + 1)
    assert recovery.settled("b", "a")
    assert not recovery.needed("b", "a", 1000.0)


def test_a_look_that_failed_is_needed_again() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    assert recovery.needed("b", "a", 101.0)


def test_a_broker_that_changes_again_is_looked_at_anew() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    recovery.done(100.0)
    assert recovery.needed("c", "a", 101.0)
    recovery.done(101.0)
    assert not recovery.settled("b", "a")
    assert not recovery.settled("c", "a")
    assert recovery.needed("b", "a", 102.0)
