"""Workers whose Postgres accepts and never answers: told to stop they stop, and what they hold is stored later."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from tests.eventually import eventually
from tests.silent_postgres import silent
from tests.workers.conftest import StartWorker

from headrace.cli.stack.servers import Postgres
from headrace.contracts import Settings
from headrace.producers import Client

GRACE_S = 2.0

#: A process ends soon after its grace period, and long before Postgres is given up.
ENDS_S = 30


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of this module's own, since all its databases are silent together."""
    with tempfile.TemporaryDirectory(prefix="headrace-silent-") as folder, Postgres(Path(folder) / "pg") as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    postgres.create_database(request.node.name[:60])
    return postgres.url_of(request.node.name[:60])


def test_a_worker_that_waits_for_a_silent_store_ends_when_told_to(
    settings: Settings, start_worker: StartWorker, postgres: Postgres, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    limits = {"HEADRACE_GRACE_S": str(GRACE_S), "HEADRACE_DATABASE_TIMEOUT_S": "60"}
    with Client(settings) as client:
        with start_worker(**limits) as process:
            client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
            with silent(postgres):
                handles = client.submit_many("double", {"x": np.ones((500, 4), np.float32)})
                time.sleep(1)
                process.terminate()
                process.wait(ENDS_S)
        assert "could not be stored in time" in log.read_text()
        with start_worker():
            for handle in handles:
                assert handle.result(timeout_s=40)["y"].shape == (1, 4)


def test_a_silent_store_is_noticed_once_and_what_was_held_is_stored(
    settings: Settings, start_worker: StartWorker, postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with Client(settings) as client, start_worker(HEADRACE_DATABASE_TIMEOUT_S="4"):
        client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        with silent(postgres):
            handles = client.submit_many("double", {"x": np.ones((500, 4), np.float32)})
            eventually(lambda: "store away" in log.read_text(), 60, "the line that the store is away")
            time.sleep(10)
        for handle in handles:
            assert handle.result(timeout_s=40)["y"].shape == (1, 4)
        assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)
    with psycopg.connect(database_url) as store:
        assert store.execute("SELECT count(*), count(DISTINCT id) FROM predictions").fetchone() == (501, 501)
