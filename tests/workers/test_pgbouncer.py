"""Workers, clients and commands through a real pgbouncer, in each of its modes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.pgbouncer import PgBouncer
from tests.workers.conftest import command, running_worker
from tests.workers.predictions import prediction_of

from headrace.contracts import Settings
from headrace.producers import Client


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, settings: Settings, postgres_uri: str) -> Iterator[Settings]:
    """Settings that lead to the store through a pooler."""
    with PgBouncer(postgres_uri, pool_mode=request.param) as pooler:
        url = pooler.url_of(settings.require_database_url())
        yield settings.model_copy(update={"database_url": SecretStr(url)})


def test_all_parts_work_through_a_pooler(pooled: Settings, tmp_path: Path) -> None:
    assert command(pooled, "store", "migrate").returncode == 0
    log = tmp_path / "worker.log"
    inputs = np.arange(8000, dtype=np.float32).reshape(-1, 4)
    with Client(pooled) as client, ExitStack() as workers:
        cancelled = client.submit("double", {"x": inputs[:1]})
        assert cancelled.cancel()
        for number in range(2):
            workers.enter_context(running_worker(pooled, log, name=f"worker{number}"))
        handles = client.submit_many("double", {"x": inputs})
        # Too large to come with the reply: read from the store.
        large = client.submit("double", {"x": np.ones((40_000, 4), np.float32)})
        for row, handle in enumerate(handles):
            assert handle.result(timeout_s=60)["y"].tolist() == [(2 * inputs[row]).tolist()]
        assert large.result(timeout_s=60)["y"].shape == (40_000, 4)
        assert all(prediction_of(client, handle.id).state == "succeeded" for handle in handles[:40])
        assert prediction_of(client, cancelled.id).state == "cancelled"
    counts = json.loads(command(pooled, "store", "stats", "--json").stdout)
    assert counts["rows"] == len(handles) + 2
    assert command(pooled, "store", "prune", "--days", "1").returncode == 0
    assert "store away" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_durable_requests_work_through_a_pooler(pooled: Settings, tmp_path: Path) -> None:
    one = {"x": np.ones((1, 4), np.float32)}
    url = pooled.require_database_url()
    log = tmp_path / "worker.log"
    with Client(pooled) as client, running_worker(pooled, log), psycopg.connect(url) as application:
        assert client.predict("double", one, timeout_s=60, durable=True)["y"].tolist() == [[2.0] * 4]
        handles = client.submit_many("double", {"x": np.ones((500, 4), np.float32)}, durable=True)
        for handle in handles:
            assert handle.result(timeout_s=60)["y"].tolist() == [[2.0] * 4]
        committed = client.submit("double", one, durable=True, connection=application)
        application.commit()
        assert committed.result(timeout_s=60)["y"].tolist() == [[2.0] * 4]
        rolled_back = client.submit("double", one, durable=True, connection=application)
        application.rollback()
        with psycopg.connect(url, autocommit=True) as looking:
            left = "SELECT count(*) FROM headrace_requests"
            eventually(lambda: looking.execute(left, prepare=False).fetchone() == (0,), 60, "the rows to go")
        assert client.get(rolled_back.id) is None
    assert "Traceback" not in log.read_text()
