"""Requests that end their worker, fail for a while or need too much memory; and those that come again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis
from celery import Celery
from tests.eventually import eventually
from tests.plugin import write_plugin
from tests.workers.conftest import StartWorker, command
from tests.workers.faulty_runtime import BUSY, DEADLY, HOLDER, KILLER, NEVER, FaultyRuntime
from tests.workers.predictions import outputs_of, prediction_of

from headrace.contracts import InferenceFailed, PoisonRequest, Settings
from headrace.contracts.ids import row_id
from headrace.contracts.package.manifest import sha256_of
from headrace.producers.client import Client
from headrace.queueing import ClaimingConsumer, dead_letters, keys
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter

MAX_ROWS = 8


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    """Where the faulty runtime keeps its notes; adds the model `faulty`."""
    package = settings.models / "faulty" / "1"
    package.mkdir(parents=True)
    (package / "model.bin").write_bytes(b"anything")
    specs = "\n".join(
        f'[[{kind}]]\nname = "{name}"\ndatatype = "FP32"\nshape = [1]'
        for kind, name in (("inputs", "x"), ("outputs", "y"))
    )
    (package / "model.toml").write_text(
        f'name = "faulty"\nversion = "1"\nruntime = "faulty"\nfile = "model.bin"\n'
        f'sha256 = "{sha256_of(package / "model.bin")}"\n{specs}\n[batching]\nmax_rows = {MAX_ROWS}\n'
    )
    return write_plugin(tmp_path / "plugin", FaultyRuntime)


@pytest.fixture
def start(start_worker: StartWorker, folder: Path) -> StartWorker:
    def start(**environment: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        return start_worker(
            **{"PYTHONPATH": str(folder), "FAULTY_FOLDER": str(folder), "HEADRACE_LEASE_S": "1"} | environment
        )

    return start


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        yield broker


def runs(folder: Path) -> list[list[float]]:
    """What the model was given, run by run, warm-ups left out."""
    lines = (folder / "runs").read_text().split()
    return [values for line in lines if (values := [float(value) for value in line.split(",")]) != [0.0]]


def column(values: Iterable[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None]


def said_by(settings: Settings, *words: str) -> str:
    done = command(settings, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_poison_ends_as_a_dead_letter_and_its_neighbours_are_served(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    values = [float(n) for n in range(1, 41)]
    values[17] = KILLER
    with Client(settings) as client:
        handles = client.submit_many("faulty", {"x": column(values)})
        for _ in range(3):
            with start() as worker:
                assert worker.wait(60) == -signal.SIGKILL
        with start():
            for value, handle in zip(values, handles, strict=True):
                if value != KILLER:
                    assert handle.result(timeout_s=60)["y"].tolist() == [[2 * value]]
            with pytest.raises(PoisonRequest, match="3 workers died"):
                handles[17].result(timeout_s=60)
            deadly = [run for run in runs(folder) if KILLER in run]
            assert [len(run) for run in deadly] == [MAX_ROWS, 1, 1]
            # Those that ran with it when it first killed a worker share no batch any more; the others do.
            later = runs(folder)[runs(folder).index(deadly[0]) + 1 :]
            assert all(len(run) == 1 for run in later if set(run) & set(deadly[0]))
            assert any(len(run) > 1 for run in later)
            (letter,) = dead_letters(broker)
            assert len(letter.history) == 3
            assert all("died while it ran this request" in line and "@" in line for line in letter.history)
            assert letter.queue == "infer.faulty"
            assert prediction_of(client, handles[17].id).attempts == 4
            assert not broker.keys("headrace:deaths")

            assert "3 workers died" in said_by(settings, "dead", "list", "--model", "faulty")
            assert handles[17].id in said_by(settings, "dead", "show", letter.id)
            (folder / "cured").touch()
            assert "put back 1 dead letter" in said_by(settings, "dead", "retry", letter.id)
            eventually(lambda: client.get(handles[17].id) is not None, 30, "the answer to the cured one")
            assert outputs_of(client, handles[17].id)["y"].tolist() == [[2 * KILLER]]
            assert dead_letters(broker) == []


def test_a_batch_that_holds_the_gil_past_its_lease_runs_once(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis, tmp_path: Path
) -> None:
    holding = {"FAULTY_HOLD_S": "15", "HEADRACE_LEASE_S": "5"}
    with Client(settings) as client, start(**holding), start(**holding), start(**holding):
        # A worker that has just started is still starting the process that keeps its lease.
        eventually(lambda: (tmp_path / "worker.log").read_text().count(" ready.") == 3, 60, "three workers")
        time.sleep(1)
        handle = client.submit("faulty", {"x": column([HOLDER])})
        assert handle.result(timeout_s=60)["y"].tolist() == [[2 * HOLDER]]
        assert prediction_of(client, handle.id).attempts == 1
        eventually(lambda: not broker.keys("headrace:inflight:*"), 30, "the acknowledgement")
        assert runs(folder) == [[HOLDER]]
        assert not broker.exists(keys.PLAIN.deliveries, keys.PLAIN.deaths)


@pytest.mark.parametrize(
    ("readers", "deaths"), [("body", 2), ("envelope", 2), ("envelope,end", 3)], ids=["body", "envelope", "even its end"]
)
def test_a_message_that_kills_whoever_reads_it_ends_as_a_dead_letter_and_no_other_does(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis, readers: str, deaths: int
) -> None:
    limits = {"HEADRACE_MAX_DELIVERIES": "2"}
    deadly_value = np.frombuffer(DEADLY, "<f4")[0]
    with Client(settings) as client:
        before = client.submit_many("faulty", {"x": column(range(1, 31))})
        deadly = client.submit("faulty", {"x": column([deadly_value])}, request_id=f"{DEADLY.decode()}ly")
        after = client.submit_many("faulty", {"x": column(range(31, 61))})
        # Its first death is nobody's, for first deliveries are read without a mark.
        for _ in range(1 + deaths):
            with start(FAULTY_READERS=readers, **limits) as worker:
                assert worker.wait(60) == -signal.SIGKILL
        # What ran when the first delivery was read died with it, once; after that, nothing did but the offender, whose
        # last death isn't noted yet.
        notes: list[Any] = broker.hvals(keys.PLAIN.deaths)
        *others, offender = sorted(lines.count(b"\n") for lines in notes)
        assert offender == deaths - 1
        assert all(count == 1 for count in others)
        with start(FAULTY_READERS=readers, **limits):
            for value, handle in enumerate([*before, *after], 1):
                assert handle.result(timeout_s=60)["y"].tolist() == [[2 * value]]
            eventually(lambda: dead_letters(broker), 30, "the dead letter")
            (letter,) = dead_letters(broker)
            assert letter.reason == f"poison: {deaths} workers died while they ran this request"
            assert len(letter.history) == deaths
            if "end" not in readers:
                with pytest.raises(PoisonRequest, match="2 workers died"):
                    deadly.result(timeout_s=60)
        threads = (folder / "readings").read_text().split()
        assert threads == ["MainThread", *["headrace-executor"] * deaths]
    assert not broker.keys("headrace:inflight:*")
    assert not broker.keys("headrace:deaths")


def test_a_redelivered_request_that_has_a_row_is_answered_from_it(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    dead = ClaimingConsumer(broker, lease_s=60)
    with Client(settings) as client, StoreReader(settings.require_database_url()) as store:
        ended, open_ = client.submit("faulty", {"x": column([1])}), client.submit("faulty", {"x": column([2])})
        assert len(dead.claim({"infer.faulty": 5})) == 2
        broker.zadd(keys.PLAIN.leases, {dead.id: 1})
        store.cancel(ended.id, "faulty")
        with start():
            assert open_.result(timeout_s=60)["y"].tolist() == [[4.0]]
            eventually(ended.done, 30, "the reply from the row")
            assert ended.status() == "cancelled"
            assert prediction_of(client, open_.id).attempts == 2
        assert runs(folder) == [[2.0]]
        assert not broker.keys("headrace:inflight:*")
        assert not broker.exists(keys.PLAIN.deliveries)


def test_a_redelivered_request_of_a_plain_celery_client_is_answered_from_its_row(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    """Its worker died after the commit. The row says 9, which no run gives, so the answer tells its source."""
    app = Celery(broker=settings.require_broker_url(), backend=settings.require_broker_url(), set_as_current=False)
    result = app.send_task("infer.faulty", kwargs={"inputs": {"x": [[1]]}}, queue="infer.faulty")
    dead = ClaimingConsumer(broker, lease_s=60)
    assert dead.claim({"infer.faulty": 1})
    broker.zadd(keys.PLAIN.leases, {dead.id: 1})
    row = Row(id=row_id(result.id), state="succeeded", outputs=b'{"y":[[9.0]]}', datatypes="y:FP32")
    with StoreWriter(settings.require_database_url()) as writer:
        writer.write([BatchRows(model="faulty", version="1", rows=[row], finished_at=time.time())])
    with start():
        assert result.get(timeout=30) == {"y": [[9.0]]}
    assert runs(folder) == []
    app.close()


def test_a_failure_that_passes_is_tried_again_while_others_run(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    (folder / "failures").write_text("3")
    with start(), Client(settings) as client:
        busy = client.submit("faulty", {"x": column([BUSY])})
        eventually(lambda: broker.zcard(keys.PLAIN.delayed), 30, "the first failure")
        assert client.predict("faulty", {"x": column([7])}, timeout_s=60)["y"].tolist() == [[14.0]]
        assert busy.result(timeout_s=60)["y"].tolist() == [[2 * BUSY]]
        assert prediction_of(client, busy.id).attempts == 4
        assert runs(folder).count([BUSY]) == 4
        assert runs(folder).index([7.0]) < len(runs(folder)) - 1
    assert not broker.keys("headrace:delayed*")
    assert not broker.exists(keys.PLAIN.retries)


def test_a_failure_that_does_not_pass_ends_after_the_last_retry(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    with start(HEADRACE_MAX_RETRIES="1"), Client(settings) as client:
        handle = client.submit("faulty", {"x": column([NEVER])})
        with pytest.raises(InferenceFailed, match="failed 2 times"):
            handle.result(timeout_s=60)
    assert not broker.keys("headrace:delayed*")
    assert not broker.keys("headrace:inflight:*")


def test_out_of_memory_makes_batches_smaller_also_for_the_next_process(
    settings: Settings, start: StartWorker, folder: Path, broker: redis.Redis
) -> None:
    inputs = column(range(1, 21))
    with Client(settings) as client:
        for _ in range(2):
            (folder / "runs").unlink(missing_ok=True)
            handles = client.submit_many("faulty", {"x": inputs})
            with start(FAULTY_MEMORY_ROWS="3"):
                found = np.concatenate([handle.result(timeout_s=60)["y"] for handle in handles])
                np.testing.assert_array_equal(found, 2 * inputs)
            assert broker.hgetall(keys.PLAIN.ceilings) == {b"faulty 1 cpu": b"2"}
        assert max(map(len, runs(folder))) == 2


def test_no_row_is_lost_or_doubled_by_all_this(settings: Settings, start: StartWorker, folder: Path) -> None:
    (folder / "failures").write_text("2")
    values = [*range(1, 30), BUSY]
    with start(FAULTY_MEMORY_ROWS="5"), Client(settings) as client:
        handles = client.submit_many("faulty", {"x": column(values)})
        found = [float(handle.result(timeout_s=60)["y"][0, 0]) for handle in handles]
        assert found == [2.0 * value for value in values]
    with psycopg.connect(settings.require_database_url()) as connection:
        (counts,) = connection.execute("SELECT count(*), count(DISTINCT id) FROM predictions").fetchall()
    assert counts == (30, 30)
