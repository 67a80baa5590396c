"""Clients of a store whose model is announced, and a worker that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.producers.jobs.player import MODEL, Player, announce

from headrace.contracts import Settings
from headrace.producers import Client
from headrace.queueing import ClaimingConsumer
from headrace.results_store.jobs.ledger import Ledger
from headrace.testing import TemporaryStack


@pytest.fixture
def job_settings(broker_url: str, headrace_stack: TemporaryStack, tmp_path: Path) -> Iterator[Settings]:
    with headrace_stack.results_store() as database_url:
        yield Settings(broker_url=broker_url, database_url=database_url, models=tmp_path / "models")


@pytest.fixture
def serving_worker(serving: Callable[[str], ClaimingConsumer]) -> ClaimingConsumer:
    """A worker that is known to serve the model; it takes nothing."""
    consumer = serving(f"infer.{MODEL}")
    announce(consumer)
    return consumer


@pytest.fixture
def scorer(job_settings: Settings, serving_worker: ClaimingConsumer) -> Iterator[Client]:
    with Client(job_settings) as client:
        yield client


@pytest.fixture
def player(job_settings: Settings) -> Iterator[Player]:
    with Ledger(job_settings.require_database_url()) as ledger:
        yield Player(ledger)
