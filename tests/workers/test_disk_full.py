"""Postgres on a full disk, for real: workers hold what they have computed, and go on when there is room again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
import redis
from tests.chaos.faults.disk import FILLER, end_for_lack_of_wal, tables_full
from tests.eventually import eventually
from tests.workers.conftest import StartWorker

from headrace.cli.stack.servers import Postgres
from headrace.contracts import Settings
from headrace.producers import Client, Handle
from headrace.queueing import keys

REQUESTS = 2_000
INPUTS = np.arange(4 * REQUESTS, dtype=np.float32).reshape(-1, 4)

#: So small that an outage fills the outbox.
OUTBOX_ROWS = 256

#: What a worker may hold besides: a batch that runs and those that are claimed ahead, of 64 rows each.
AHEAD_ROWS = 4 * 64

#: So many refused writes show that the worker has tried again and again.
REFUSALS = 4


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of this module's own, since the disk is full for all its databases."""
    with tempfile.TemporaryDirectory(prefix="headrace-disk-") as folder, Postgres(Path(folder) / "postgres") as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    postgres.create_database(request.node.name)
    return postgres.url_of(request.node.name)


def check_end(handles: list[Handle], database_url: str) -> None:
    """Every request has its right answer, and one row."""
    for x, handle in zip(INPUTS, handles, strict=True):
        assert handle.result(timeout_s=60)["y"].tolist() == [(2 * x).tolist()]
    with psycopg.connect(database_url) as connection:
        count = "SELECT count(*), count(DISTINCT id) FROM predictions WHERE model <> %s AND state = 'succeeded'"
        assert connection.execute(count, [FILLER]).fetchall() == [(REQUESTS, REQUESTS)]


def test_on_a_full_disk_results_are_held_and_none_is_lost(
    settings: Settings, start_worker: StartWorker, postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with (
        start_worker(HEADRACE_OUTBOX_ROWS=str(OUTBOX_ROWS)),
        Client(settings) as client,
        redis.Redis.from_url(settings.require_broker_url()) as broker,
    ):
        with tables_full(postgres, database_url) as refusals:
            handles = client.submit_many("double", {"x": INPUTS})
            eventually(lambda: refusals() >= REFUSALS, 60, "Postgres to refuse writes")
            held = sum(broker.hlen(key) for key in broker.keys("headrace:inflight:*"))
            assert 0 < held <= OUTBOX_ROWS + AHEAD_ROWS
            assert not handles[-1].done()
            assert log.read_text().count("store away") == 1
        check_end(handles, database_url)
        assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)
        eventually(lambda: not broker.keys("headrace:inflight:*"), 60, "the last acknowledgement")
        eventually(lambda: not broker.exists(keys.PLAIN.deliveries), 60, "the end of all notes")


def test_when_a_full_disk_has_ended_postgres_nothing_is_lost(
    settings: Settings, start_worker: StartWorker, postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with start_worker(HEADRACE_OUTBOX_ROWS=str(OUTBOX_ROWS)), Client(settings) as client:
        eventually(lambda: " ready." in log.read_text(), 60, "the worker")
        end_for_lack_of_wal(postgres, database_url)
        handles = client.submit_many("double", {"x": INPUTS})
        eventually(lambda: "store away" in log.read_text(), 60, "the line that the store is away")
        postgres.start()
        check_end(handles, database_url)
        assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)
