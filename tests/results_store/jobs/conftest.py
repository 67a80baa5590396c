"""Ledgers with jobs whose shards are ready to be claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.results_store.jobs.examples import new_job, plan

from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import JobRow

MakeJob = Callable[..., JobRow]


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    with Ledger(store_url) as ledger:
        yield ledger


@pytest.fixture
def other(store_url: str) -> Iterator[Ledger]:
    """A second session on the same store."""
    with Ledger(store_url) as ledger:
        yield ledger


@pytest.fixture
def make_job(ledger: Ledger) -> MakeJob:
    """Make a job that is planned."""

    def make(shards: int = 1, *, done: bool = True, **about: Any) -> JobRow:
        job, created = ledger.jobs.create(new_job(**about))
        assert created
        plan(ledger, job, shards, done=done)
        return ledger.jobs.get(job.id)

    return make
