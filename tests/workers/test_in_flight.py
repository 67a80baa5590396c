"""Models that take several batches at once: they overlap up to the bound, and end like all others."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import redis
from tests.eventually import eventually
from tests.plugin import write_plugin
from tests.workers.concurrent_runtime import (
    BUSY,
    HELD,
    IN_FLIGHT,
    MEETING,
    REFUSED,
    ConcurrentRuntime,
    write_package,
)
from tests.workers.conftest import StartWorker, running_worker
from tests.workers.predictions import prediction_of

from headrace.contracts import InferenceFailed, Settings
from headrace.producers import Client, Handle
from headrace.queueing import keys


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    """Where the model keeps its notes; adds the model `remote`."""
    write_package(settings.models)
    return write_plugin(tmp_path / "plugin", ConcurrentRuntime)


@pytest.fixture
def start(settings: Settings, tmp_path: Path, folder: Path) -> StartWorker:
    environment = {"PYTHONPATH": str(folder), "CONCURRENT_FOLDER": str(folder)}
    return lambda: running_worker(settings, tmp_path / "worker.log", **environment)


def submit(client: Client, *values: float) -> list[Handle]:
    return client.submit_many("remote", {"x": np.array(values, np.float32)[:, None]})


def answers(handles: list[Handle]) -> list[float]:
    return [handle.result(timeout_s=60)["y"].item() for handle in handles]


def counts(folder: Path) -> list[int]:
    """How many batches ran at the begin of each."""
    file = folder / "runs"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_batches_overlap_up_to_the_bound_and_no_further(settings: Settings, start: StartWorker, folder: Path) -> None:
    with start(), Client(settings) as client:
        # Each waits in the model for two others, so that one after the other would never end.
        assert answers(submit(client, *[MEETING] * 4 * IN_FLIGHT)) == [2 * MEETING] * 4 * IN_FLIGHT
    assert len(counts(folder)) == 4 * IN_FLIGHT
    assert max(counts(folder)) == IN_FLIGHT


def test_others_go_on_while_batches_are_in_flight_and_all_of_these_are_marked(
    settings: Settings, start: StartWorker, folder: Path
) -> None:
    with start(), Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:
        held = submit(client, *[HELD] * IN_FLIGHT)

        def marked() -> int:
            return sum(value.count(b"\n") for key in broker.keys(keys.PLAIN.running("*")) if (value := broker.get(key)))

        eventually(lambda: marked() == IN_FLIGHT, 60, "a marker that names all batches in flight")
        assert client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)["y"].tolist() == [[2.0] * 4]
        assert not any(handle.done() for handle in held)
        (folder / "go").touch()
        assert answers(held) == [2 * HELD] * IN_FLIGHT
        eventually(lambda: marked() == 0, 30, "a marker that is gone")


def test_failures_are_those_of_their_requests(settings: Settings, start: StartWorker) -> None:
    with start(), Client(settings) as client:
        refused, busy, *fine = submit(client, REFUSED, BUSY, 1.0, 2.0, 3.0)
        assert answers(fine) == [2.0, 4.0, 6.0]
        with pytest.raises(InferenceFailed):
            refused.result(timeout_s=60)
        assert busy.result(timeout_s=60)["y"].item() == 2 * BUSY
        assert prediction_of(client, busy.id).attempts == 2


def test_a_worker_that_ends_finishes_what_is_in_flight_and_puts_back_the_rest(
    settings: Settings, start: StartWorker, folder: Path
) -> None:
    with Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:

        def claimed() -> int:
            return sum(broker.hlen(key) for key in broker.keys("headrace:inflight:*"))

        with start() as worker:
            handles = submit(client, *[HELD] * (IN_FLIGHT + 2))
            eventually(lambda: len(counts(folder)) == IN_FLIGHT and claimed() > IN_FLIGHT, 30, "requests behind them")
            worker.send_signal(signal.SIGTERM)
            eventually(lambda: claimed() == IN_FLIGHT, 30, "requests that were put back")
            (folder / "go").touch()
            assert worker.wait(60) == 0
        assert counts(folder) == [1, 2, 3]
        with start():
            assert answers(handles) == [2 * HELD] * (IN_FLIGHT + 2)
        assert {prediction_of(client, handle.id).attempts for handle in handles} == {1}
        assert len(counts(folder)) == IN_FLIGHT + 2
