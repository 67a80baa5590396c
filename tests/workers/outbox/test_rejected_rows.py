"""Rows that Postgres refuses, and rows that are there before: every request ends, and its client is told the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
import redis
from tests.workers.conftest import StartWorker
from tests.workers.predictions import prediction_of

from headrace.contracts import Cancelled, InferenceFailed, Settings, SignatureMismatch
from headrace.producers.client import Client
from headrace.queueing import dead_letter, dead_letters
from headrace.results_store import StoreReader

FOUR = np.ones((1, 4), np.float32)
WRONG = np.ones((1, 3), np.float32)


@pytest.fixture
def store(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_broker_url(), socket_timeout=90) as broker:
        yield broker


@pytest.fixture
def bare_client(settings: Settings, tmp_path: Path) -> Iterator[Client]:
    """A client that can't read the model directory, so that the worker must check what it sends."""
    with Client(settings.model_copy(update={"models": tmp_path / "nowhere"})) as client:
        yield client


def test_a_failure_whose_row_is_refused_is_stored_without_what_the_client_chose(
    store: psycopg.Connection, bare_client: Client, start_worker: StartWorker, broker: redis.Redis
) -> None:
    store.execute("ALTER TABLE predictions ADD CHECK (foreign_id <> 'refused')")
    bad = bare_client.submit("double", {"x": WRONG}, request_id="refused")
    good = bare_client.submit_many("double", {"x": np.repeat(FOUR, 20, axis=0)})
    with start_worker():
        with pytest.raises(SignatureMismatch):
            bad.result(timeout_s=60)
        for handle in good:
            assert handle.result(timeout_s=60)["y"].shape == (1, 4)
    row = prediction_of(bare_client, "refused")
    assert row.error is not None
    assert (row.state, row.error.type) == ("failed", "SignatureMismatch")
    assert not broker.keys("headrace:inflight:*")
    assert dead_letters(broker) == []


def test_a_request_that_has_no_storable_row_is_answered_and_goes_to_the_dead_letters(
    store: psycopg.Connection, bare_client: Client, start_worker: StartWorker, broker: redis.Redis, tmp_path: Path
) -> None:
    bad = bare_client.submit("double", {"x": FOUR})
    store.execute(f"ALTER TABLE predictions ADD CHECK (id <> '{bad.id}')")
    good = bare_client.submit_many("double", {"x": np.repeat(FOUR, 20, axis=0)})
    with start_worker():
        with pytest.raises(InferenceFailed, match="can't be stored"):
            bad.result(timeout_s=60)
        for handle in good:
            assert handle.result(timeout_s=60)["y"].shape == (1, 4)
    (letter,) = dead_letters(broker)
    assert letter.reason.startswith("unstorable: ")
    shown = dead_letter(broker, letter.id)
    assert shown is not None
    assert "InferenceFailed" in shown.history[0]
    assert bare_client.get(bad.id) is None
    assert f"a dead letter now: request={bad.id}" in (tmp_path / "worker.log").read_text()
    assert not broker.keys("headrace:inflight:*")


def test_the_status_of_a_request_that_was_cancelled_elsewhere_is_cancelled(
    settings: Settings, start_worker: StartWorker, broker: redis.Redis
) -> None:
    """The worker finds the row when it stores its own."""
    with Client(settings) as client, StoreReader(settings.require_database_url()) as reader:
        handle = client.submit("double", {"x": FOUR})
        assert reader.cancel(handle.id, "double")
        with start_worker():
            # Not through the row: what the inbox holds must be enough.
            assert broker.blmove(client._inbox.key, "seen", 60)
            broker.lmove("seen", client._inbox.key, "RIGHT", "LEFT")
            assert handle.done()
            assert handle.reply is not None
            assert handle.reply.stored
            assert handle.status() == "cancelled"
            with pytest.raises(Cancelled):
                handle.result(timeout_s=1)


def test_the_status_of_a_request_that_had_succeeded_elsewhere_is_succeeded(
    settings: Settings, bare_client: Client, start_worker: StartWorker, store: psycopg.Connection
) -> None:
    """And not what a second delivery came to."""
    done = bare_client.submit("double", {"x": WRONG})
    store.execute(
        "INSERT INTO predictions (id, model, version, state, outputs, datatypes, finished_at, attempts, cached)"
        """ VALUES (%s, 'double', '1', 'succeeded', '{"y": [[7]]}', 'y:FP32', now(), 1, false)""",
        (done.id,),
    )
    with start_worker():
        assert done.result(timeout_s=60)["y"].tolist() == [[7.0]]
        assert done.status() == "succeeded"
