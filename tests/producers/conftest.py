"""Clients with and without a database, and peers that answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.producers.peer import Peer

from headrace.contracts import Settings
from headrace.producers import Client
from headrace.queueing import ClaimingConsumer, connect
from headrace.results_store import migrate


@pytest.fixture
def peer(broker_url: str) -> Iterator[Peer]:
    """A peer whose thread doesn't run: the test takes and replies by itself."""
    peer = Peer(broker_url)
    yield peer
    peer.client.close()


@pytest.fixture
def worker(broker_url: str) -> Iterator[Peer]:
    """A peer that doubles whatever comes."""
    with Peer(broker_url) as peer:
        yield peer


@pytest.fixture
def settings(broker_url: str, tmp_path: Path) -> Settings:
    """Settings without a database."""
    return Settings(broker_url=broker_url, models=tmp_path / "models")


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def stored_settings(broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    """Settings with a migrated database."""
    migrate(database_url)
    return Settings(broker_url=broker_url, database_url=database_url, models=tmp_path / "models")


@pytest.fixture
def stored_client(stored_settings: Settings) -> Iterator[Client]:
    with Client(stored_settings) as client:
        yield client


@pytest.fixture
def serving(broker_url: str) -> Iterator[Callable[[str], ClaimingConsumer]]:
    """Make consumers that are known to consume a queue, as workers are; they take nothing."""
    with connect(broker_url) as connection:

        def serve(queue: str) -> ClaimingConsumer:
            consumer = ClaimingConsumer(connection, lease_s=60)
            consumer.queues.add(queue)
            return consumer

        yield serve
