"""The outbox is bounded in bytes: large outputs fill no memory while Postgres is silent or back, and none is lost."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tests.eventually import eventually
from tests.workers.conftest import StartWorker, write_package
from tests.workers.example_request import made_request

from headrace.cli.stack.servers import Postgres
from headrace.contracts import Settings, TensorSpec
from headrace.contracts.ids import new_uuid
from headrace.contracts.tensors.rows import RowAxes
from headrace.producers import Client
from headrace.workers.outbox.finished import not_run
from headrace.workers.outbox.held import Held, portions
from headrace.workers.request import FinishedBatch, Run

#: Floats of one request's output: a megabyte.
WIDTH = 1 << 18

#: Requests of each of the two models: what the outbox holds, twice, of both.
REQUESTS = 130

#: How long Postgres is silent once the outbox is full. Without a bound the worker computes all requests meanwhile.
SILENCE_S = 10

#: What a worker may grow by: what the outbox holds by default, what a model takes to compute a batch, and a part that
#: is being written in all its forms.
BOUND_BYTES = 300 << 20


def held(*widths: int) -> Held:
    """A batch with one request for each width, of so many bytes of output."""
    runs = []
    for width in widths:
        axes = RowAxes([TensorSpec(name="y", datatype="INT8", shape=(-1,))])
        runs.append(Run(requests=[made_request({}, 1)], outputs={"y": np.zeros((1, width), np.int8)}, axes=axes))
    batch: FinishedBatch = not_run(None, [])
    batch.runs, batch.rows, batch.batch_id = runs, len(runs), new_uuid()
    return Held.of(batch)


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), min_size=1, max_size=5), st.integers(1, 100))
def test_portions_hold_every_request_once_and_keep_to_the_limit(widths: list[list[int]], limit_bytes: int) -> None:
    parcel = [held(*each) for each in widths]
    whole = [request for one in parcel for run in one.batch.runs for request in run.requests]
    rows, size_bytes = sum(one.rows for one in parcel), sum(one.size_bytes for one in parcel)
    ids = {one.batch.batch_id for one in parcel}
    found = list(portions(parcel, limit_bytes))
    parts = [part for portion in found for part in portion]
    assert [request for part in parts for run in part.batch.runs for request in run.requests] == whole
    assert (sum(part.rows for part in parts), sum(part.size_bytes for part in parts)) == (rows, size_bytes)
    assert {part.batch.batch_id for part in parts} == ids
    for portion in found:
        assert sum(part.size_bytes for part in portion) <= limit_bytes or len(portion) == 1
        assert all(part.size_bytes <= limit_bytes or part.rows == 1 for part in portion)
    # Parts of a batch are views of its arrays, which go with the last of them.
    assert sum(part.frees_bytes for part in parts) == size_bytes
    last = {part.batch.batch_id: part for part in parts}
    assert all(part.frees_bytes == 0 for part in parts if part is not last[part.batch.batch_id])


def test_rows_set_aside_count_as_the_copies_that_they_are() -> None:
    whole = held(10, 20, 30)
    first, *rest = whole.cut(30)
    (request,) = first.batch.runs[0].requests
    aside = first.set_aside({request.row_id})
    assert aside is not None
    assert (aside.size_bytes, aside.frees_bytes) == (10, 10)
    assert [part.frees_bytes for part in (first, *rest)] == [0, 60]
    assert aside.batch.runs[0].outputs["y"].base is None


def test_what_is_stored_is_held_no_longer_by_whoever_is_told() -> None:
    stored = held(10)
    (run,) = stored.settled().runs
    assert run.outputs == {}


def test_a_request_that_has_ended_holds_its_inputs_no_longer() -> None:
    batch = not_run(None, [])
    request = made_request({"x": np.zeros((1, 1 << 20))}, 1)
    batch.runs = [Run(requests=[request], outputs={}, axes=RowAxes([]))]
    Held.of(batch)
    assert request.inputs == {}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of this module's own, since all its databases are silent together."""
    with tempfile.TemporaryDirectory(prefix="headrace-bytes-") as folder, Postgres(Path(folder) / "pg") as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    postgres.create_database(request.node.name)
    return postgres.url_of(request.node.name)


class MemoryPeak:
    """Looks at the memory of a process in a thread of its own; `grown_bytes`: the most it had more than before."""

    def __init__(self, pid: int) -> None:
        self.grown_bytes = 0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> MemoryPeak:
        self._before_bytes = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.grown_bytes = max(self.grown_bytes, self._process.memory_info().rss - self._before_bytes)


def signal_all(postgres: Postgres, number: int) -> None:
    """Send a signal to the server and all its sessions: stopped, it accepts connections and never answers."""
    for pid in (postgres.pid, *(child.pid for child in psutil.Process(postgres.pid).children(recursive=True))):
        os.kill(pid, number)


def write_wide(models: Path, name: str, store: str) -> None:
    write_package(
        models,
        name,
        [helper.make_node("Tile", ["x", "repeats"], ["y"])],
        {"x": ("FP32", (1,))},
        {"y": ("FP32", (WIDTH,))},
        [("repeats", np.array([1, WIDTH]))],
        extra=f'[store]\noutputs = "{store}"\n[batching]\nmax_rows = 16\n',
    )


def test_large_outputs_stay_within_the_bound_while_postgres_is_silent_and_when_it_is_back(
    settings: Settings, models: Path, start_worker: StartWorker, postgres: Postgres, database_url: str
) -> None:
    # Two models, since each has memory of its own where they don't share it.
    names = ("packed", "text")
    for name, store in zip(names, ("binary", "json"), strict=True):
        write_wide(models, name, store)
    with Client(settings) as client, start_worker() as process:
        for name in names:
            client.predict(name, {"x": np.ones((1, 1), np.float32)}, timeout_s=60)
        with MemoryPeak(process.pid) as peak:
            signal_all(postgres, signal.SIGSTOP)
            try:
                rows = np.arange(REQUESTS, dtype=np.float32).reshape(-1, 1)
                handles = [handle for name in names for handle in client.submit_many(name, {"x": rows})]
                eventually(lambda: peak.grown_bytes > settings.outbox_bytes / 2, 90, "an outbox that holds all it may")
                time.sleep(SILENCE_S)
            finally:
                signal_all(postgres, signal.SIGCONT)
            for number, handle in enumerate(handles):
                assert handle.result(timeout_s=90)["y"][0, -1] == number % REQUESTS
        assert peak.grown_bytes < BOUND_BYTES
    with psycopg.connect(database_url) as connection:
        count = "SELECT count(*) FROM predictions WHERE state = 'succeeded'"
        assert connection.execute(count).fetchall() == [(2 * (REQUESTS + 1),)]
