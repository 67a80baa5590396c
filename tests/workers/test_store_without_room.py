"""A Postgres that has no connection to spare, or takes no writes: workers wait, say why in one line, and go on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.workers.conftest import running_worker

from headrace.cli.stack.servers import Postgres
from headrace.contracts import Settings, StoreUnavailable
from headrace.producers import Client
from headrace.results_store import migrate

X = {"x": np.ones((1, 4), np.float32)}

#: The least that a worker, a client and this test need; the more there are, the longer it takes to hold them all.
CONNECTIONS = 12

FORBID = "ALTER DATABASE postgres SET default_transaction_read_only = on"
ALLOW = "ALTER DATABASE postgres RESET default_transaction_read_only"


@pytest.fixture
def server() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder, Postgres(Path(folder) / "postgres") as server:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}")
        server.stop()
        server.start()
        migrate(server.url)
        yield server


@pytest.fixture
def small(settings: Settings, server: Postgres) -> Settings:
    return settings.model_copy(update={"database_url": SecretStr(server.url)})


@pytest.fixture
def admin(server: Postgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        yield admin


def hold_all(url: str, held: ExitStack) -> None:
    """Open connections until none is left."""
    for _ in range(CONNECTIONS + 1):
        try:
            held.enter_context(psycopg.connect(url))
        except psycopg.OperationalError as exc:
            assert "too many clients" in str(exc)  # noqa: PT017 — it is how the loop ends
            return
    pytest.fail("there are more connections than were allowed")


def await_line(log: Path, line: str, count: int = 1) -> None:
    eventually(lambda: log.exists() and log.read_text().count(line) >= count, 60, f"{line!r} in the log")


def test_a_worker_that_starts_without_a_free_connection_waits_for_one(
    small: Settings, server: Postgres, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with Client(small) as client, ExitStack() as held:
        hold_all(server.url, held)
        with pytest.raises(StoreUnavailable, match="too many clients already; raise its max_connections"):
            client.get("anything")
        with running_worker(small, log) as worker:
            handle = client.submit("double", X)
            await_line(log, "store away, waiting for a connection: Postgres refuses the connection: sorry, too many")
            # It asks several times, and says so once.
            time.sleep(2)
            assert worker.poll() is None
            held.close()
            assert handle.result(timeout_s=60)["y"].tolist() == [[2.0] * 4]
    assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)


def test_a_worker_that_waits_for_a_connection_ends_when_told_to(
    small: Settings, server: Postgres, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with ExitStack() as held:
        hold_all(server.url, held)
        with running_worker(small, log) as worker:
            await_line(log, "store away, waiting for a connection")
            worker.terminate()
            worker.wait(60)


def test_a_worker_that_finds_no_connection_again_keeps_its_results(
    small: Settings, server: Postgres, admin: psycopg.Connection, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with Client(small) as client, running_worker(small, log) as worker, ExitStack() as held:
        client.predict("double", X, timeout_s=60)
        hold_all(server.url, held)
        mine = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'headrace'").fetchall()
        for (pid,) in mine:
            # Each place that becomes free is taken before the worker asks.
            admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            held.enter_context(psycopg.connect(server.url))
        handles = client.submit_many("double", {"x": np.ones((50, 4), np.float32)})
        await_line(log, "store away, holding")
        time.sleep(2)
        assert not any(handle.done() for handle in handles)
        held.close()
        for handle in handles:
            assert handle.result(timeout_s=60)["y"].tolist() == [[2.0] * 4]
        assert worker.poll() is None
    assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)


def test_a_worker_on_a_read_only_database_says_so_at_start_and_keeps_its_results_until_it_may_write(
    small: Settings, admin: psycopg.Connection, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    admin.execute(FORBID)
    with Client(small) as client:
        cancelled = client.submit("double", X)
        with pytest.raises(StoreUnavailable, match=r"takes no writes.*must lead to the primary"):
            cancelled.cancel()
        with running_worker(small, log) as worker:
            handle = client.submit("double", X)
            await_line(log, "store takes no writes, results will wait in the workers; HEADRACE_DATABASE_URL must lead")
            await_line(log, "store away, holding")
            assert not handle.done()
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(ALLOW)
            assert handle.result(timeout_s=60)["y"].tolist() == [[2.0] * 4]
            assert worker.poll() is None
    assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)
