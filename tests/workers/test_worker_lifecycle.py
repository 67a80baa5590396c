"""How workers start, stop and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
import pytest
import redis
from celery import Celery
from tests.eventually import eventually
from tests.workers.conftest import StartWorker, submit_and_see_it_run, worker_environment
from tests.workers.predictions import prediction_of

from headrace.contracts import Cancelled, DeadlineExceeded, PackageError, Settings
from headrace.contracts.message import queue_name
from headrace.producers import Client, Handle
from headrace.results_store import StoreReader

ONE = np.ones((1, 1), np.float32)
FOUR = np.ones((1, 4), np.float32)

PARTITIONS = (
    "SELECT inhrelid::regclass::text FROM pg_inherits"
    " WHERE inhparent = 'predictions'::regclass AND inhrelid <> 'predictions_default'::regclass"
)


def start_and_fail(settings: Settings, **environment: str) -> tuple[int, str]:
    """Start a worker that can't work; give its exit code and the line it ended with."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "headrace.workers.app", "worker"],
        env={**worker_environment(settings), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_sigterm_finishes_what_runs_puts_back_the_rest_in_order_and_exits_0(
    settings: Settings, start_worker: StartWorker
) -> None:
    with redis.Redis.from_url(settings.require_broker_url()) as broker, Client(settings) as client:
        with start_worker() as worker:
            client.predict("slow", {"x": ONE}, timeout_s=60)
            # Some rows each, so that a test that is late still finds some waiting.
            handles = [client.submit("slow", {"x": np.repeat(ONE, 5, 0)}, request_id=f"r{n:02}") for n in range(12)]
            handles[0].result(timeout_s=60)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        assert not broker.keys("headrace:inflight:*")
        waiting = [raw.decode() for raw in reversed(broker.lrange(queue_name("slow"), 0, -1))]
        left = [next(f"r{n:02}" for n in range(12) if f'"r{n:02}"' in raw) for raw in waiting]
        with psycopg.connect(settings.require_database_url()) as connection:
            done = [
                row[0] for row in connection.execute("SELECT foreign_id FROM predictions WHERE foreign_id LIKE 'r%'")
            ]
        assert left == sorted(left)
        assert left
        assert sorted(done + left) == [f"r{n:02}" for n in range(12)]
        with start_worker():
            assert all((handle.result(timeout_s=60)["y"] == 1).all() for handle in handles)


def test_a_second_sigint_ends_a_worker_at_once_and_its_lease_brings_the_work_back(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    with Client(settings) as client:
        with start_worker(HEADRACE_GRACE_S="60") as worker:
            client.predict("slow", {"x": ONE}, timeout_s=60)
            handle = submit_and_see_it_run(client, settings, rows=300)
            worker.send_signal(signal.SIGINT)
            log = tmp_path / "worker.log"
            eventually(lambda: "Warm shutdown" in log.read_text(), 30, "the worker to hear the first signal")
            assert worker.poll() is None
            worker.send_signal(signal.SIGINT)
            assert worker.wait(60) == 1
        assert client.get(handle.id) is None
        with start_worker():
            assert handle.result(timeout_s=120)["y"].shape == (300, 1)


def test_what_has_not_started_is_left_to_others_and_a_long_batch_has_the_grace_period(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    with Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:
        with start_worker(HEADRACE_GRACE_S="1") as worker:
            client.predict("slow", {"x": ONE}, timeout_s=60)
            long = submit_and_see_it_run(client, settings, rows=300)
            # Nothing is claimed that would wait behind a long batch, so it is others' to begin, at the end too.
            short = client.submit("slow", {"x": ONE})
            worker.send_signal(signal.SIGTERM)
            eventually(lambda: broker.llen(queue_name("slow")) == 1, 30, "the short request to be left to others")
            assert worker.wait(60) == 0
        assert "a batch still ran after 1 s of grace" in (tmp_path / "worker.log").read_text()
        assert client.get(long.id) is None
        with start_worker():
            # The long one may come back first.
            assert short.result(timeout_s=120)
        assert long.cancel() or long.result(timeout_s=60)


def test_a_rolling_restart_under_load_loses_no_request_and_runs_each_once(
    settings: Settings, start_worker: StartWorker
) -> None:
    """One of two workers at a time is told to stop, and the next only when its successor is there."""
    over = threading.Event()

    def submit_until_over(client: Client) -> list[Handle]:
        handles = []
        while not over.wait(0.02):
            handles += [client.submit("slow", {"x": ONE}), client.submit("double", {"x": FOUR})]
            # However slow this machine is, what waits must not pile up: only a restart may delay a request.
            if len(handles) > 20:
                handles[-20].result(timeout_s=60)
        return handles

    def wait_for_two(app: Celery) -> None:
        eventually(lambda: len(app.control.ping(timeout=1) or ()) >= 2, 90, "two workers")

    with (
        Celery(broker=settings.require_broker_url(), set_as_current=False) as app,
        Client(settings) as client,
        ThreadPoolExecutor(1) as threads,
        ExitStack() as workers,
    ):
        # A lease that lapses because the machine is busy would count as a delivery too.
        old = [workers.enter_context(start_worker(HEADRACE_LEASE_S="60")) for _ in range(2)]
        wait_for_two(app)
        load = threads.submit(submit_until_over, client)
        try:
            for worker in old:
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(60) == 0
                workers.enter_context(start_worker(HEADRACE_LEASE_S="60"))
                wait_for_two(app)
        finally:
            over.set()
        handles = load.result()
        assert len(handles) > 100
        for handle in handles:
            assert handle.result(timeout_s=60)
        rows = [prediction_of(client, handle.id) for handle in handles]
    # Whatever had not started went back at once; had it come back with a lease, it would count as delivered twice.
    assert {row.attempts for row in rows} == {1}


def test_a_killed_worker_loses_nothing(settings: Settings, start_worker: StartWorker) -> None:
    with Client(settings) as client:
        with start_worker() as worker:
            client.predict("slow", {"x": ONE}, timeout_s=60)
            running = submit_and_see_it_run(client, settings, rows=100)
            handles = [running, *(client.submit("slow", {"x": ONE}) for _ in range(5))]
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        with start_worker():
            assert all((handle.result(timeout_s=60)["y"] == 1).all() for handle in handles)
        assert prediction_of(client, running.id).attempts == 2


def test_a_worker_without_postgres_or_broker_ends_with_one_clear_line(settings: Settings) -> None:
    code, errors = start_and_fail(settings, HEADRACE_DATABASE_URL="postgresql://nobody:secret@127.0.0.1:9/none")
    assert code != 0
    assert "HEADRACE_DATABASE_URL" in errors
    assert "secret" not in errors
    assert "Traceback" not in errors


def test_a_worker_makes_partitions_over_a_url_as_sqlalchemy_writes_it(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    url = settings.require_database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        for (name,) in connection.execute(PARTITIONS).fetchall():
            connection.execute(f"DROP TABLE {name}")
        sqlalchemy_url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        with start_worker(HEADRACE_DATABASE_URL=sqlalchemy_url), Client(settings) as client:
            client.predict("double", {"x": FOUR}, timeout_s=60)
        assert len(connection.execute(PARTITIONS).fetchall()) > 7
    assert "partitions" not in (tmp_path / "worker.log").read_text()


def test_a_worker_on_an_empty_database_names_the_migration(settings: Settings, postgres_uri: str) -> None:
    code, errors = start_and_fail(settings, HEADRACE_DATABASE_URL=postgres_uri)
    assert code != 0
    assert "headrace store migrate" in errors


def test_a_damaged_package_fails_its_requests_and_no_others(settings: Settings, start_worker: StartWorker) -> None:
    with (settings.models / "double" / "1" / "model.onnx").open("ab") as file:
        file.write(b"damage")
    with start_worker(), Client(settings) as client:
        with pytest.raises(PackageError, match="checksum"):
            client.predict("double", {"x": FOUR}, timeout_s=60)
        assert client.predict("total", {"x": FOUR}, timeout_s=60)["y"].tolist() == [4.0]


def test_a_request_that_expires_while_it_waits_never_runs(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(settings) as client:
        busy = [client.submit("slow", {"x": ONE}) for _ in range(10)]
        late = client.submit("slow", {"x": ONE}, deadline_s=0.01)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout_s=60)
        assert late.status() == "expired"
        assert prediction_of(client, late.id).batch_id is None
        assert busy[-1].result(timeout_s=60)["y"].shape == (1, 1)


def test_a_cancelled_request_never_runs(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(settings) as client:
        client.predict("slow", {"x": ONE}, timeout_s=60)
        busy = submit_and_see_it_run(client, settings, rows=100)
        unwanted = client.submit("slow", {"x": ONE})
        assert unwanted.cancel()
        with pytest.raises(Cancelled):
            unwanted.result(timeout_s=60)
        assert busy.result(timeout_s=60)["y"].shape == (100, 1)
        assert prediction_of(client, unwanted.id).batch_id is None


def test_a_request_that_is_revoked_while_it_runs_ends_as_cancelled(
    settings: Settings, start_worker: StartWorker
) -> None:
    with (
        Celery(broker=settings.require_broker_url(), set_as_current=False) as app,
        start_worker(),
        Client(settings) as client,
    ):
        client.predict("slow", {"x": ONE}, timeout_s=60)
        handle = submit_and_see_it_run(client, settings, rows=300)
        app.control.revoke(handle.id)
        with pytest.raises(Cancelled):
            handle.result(timeout_s=60)
        assert prediction_of(client, handle.id).state == "cancelled"


def test_urgent_requests_overtake_waiting_ones(settings: Settings, start_worker: StartWorker) -> None:
    with Client(settings) as client:
        later = [client.submit("slow", {"x": ONE}) for _ in range(10)]
        urgent = client.submit("slow", {"x": ONE}, priority=9)
        with start_worker():
            urgent.result(timeout_s=60)
            [handle.result(timeout_s=60) for handle in later]
            order = sorted((prediction_of(client, h.id).finished_at, h is urgent) for h in [*later, urgent])
        assert order[0][1]


def test_results_wait_in_the_worker_while_postgres_is_away(
    settings: Settings, start_worker: StartWorker, database_url: str, postgres_uri: str
) -> None:
    """Locked out of its table, the worker holds what it computed and acknowledges nothing."""
    with start_worker(), Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:
        client.predict("double", {"x": FOUR}, timeout_s=60)
        with psycopg.connect(database_url) as blocker:
            blocker.execute("LOCK TABLE predictions")
            handle = client.submit("double", {"x": FOUR})
            eventually(lambda: broker.keys("headrace:inflight:*"), 30, "the claim")
            assert not handle.done()
        assert handle.result(timeout_s=60)["y"].shape == (1, 4)


def test_inspect_and_remote_control_work_unmodified(settings: Settings, start_worker: StartWorker) -> None:
    with (
        Celery("peer", broker=settings.require_broker_url(), set_as_current=False) as app,
        start_worker() as _,
        Client(settings) as client,
    ):
        client.predict("double", {"x": FOUR}, timeout_s=60)
        # Whoever gives no limit hears all that answer in time: here one.
        (answer,) = eventually(lambda: app.control.ping(timeout=3) or [], 60, "an answer to a ping")
        ((node, pong),) = answer.items()
        assert pong == {"ok": "pong"}
        inspect = app.control.inspect(timeout=30, limit=1)
        assert (inspect.stats() or {})[node]["total"]["infer.double"] == 1
        assert "infer.double" in (inspect.registered() or {})[node]
        assert {queue["name"] for queue in (inspect.active_queues() or {})[node]} >= {"infer.double", "infer.slow"}
        # The answer to a client comes just before the request has ended for the worker.
        eventually(lambda: (inspect.active() or {})[node] == [], 30, "no request that runs")


def test_a_request_that_was_cancelled_behind_the_clients_back_is_told_so(
    settings: Settings, start_worker: StartWorker
) -> None:
    with Client(settings) as client, StoreReader(settings.require_database_url()) as reader:
        handle = client.submit("double", {"x": FOUR})
        assert reader.cancel(handle.id, "double")
        with start_worker(), pytest.raises(Cancelled):
            handle.result(timeout_s=60)


def test_a_worker_connects_again_when_the_broker_that_was_full_has_room(
    settings: Settings, start_worker: StartWorker
) -> None:
    with (
        start_worker() as worker,
        Client(settings) as client,
        redis.Redis.from_url(settings.require_broker_url()) as broker,
    ):
        client.predict("double", {"x": FOUR}, timeout_s=60)
        broker.config_set("maxmemory", 1)
        try:
            broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(6)
        finally:
            broker.config_set("maxmemory", 0)
        assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].shape == (1, 4)
