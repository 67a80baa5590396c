"""The outbox is bounded in bytes: large outputs fill no memory while Postgres doesn't answer, and none is lost."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tests.workers.conftest import write_package
from tests.workers.made_request import made_request

from headrace.cli.servers import Postgres
from headrace.contracts import TensorSpec
from headrace.contracts.ids import new_uuid
from headrace.contracts.rows import RowAxes
from headrace.producers import Client
from headrace.workers.executor import not_run
from headrace.workers.held import Held, portions
from headrace.workers.request import FinishedBatch, Run

#: Floats of one request's output: a megabyte.
WIDTH = 1 << 18

REQUESTS = 600

OUTBOX_BYTES = 32 << 20

#: How long Postgres is silent. Without a bound the worker computes all requests meanwhile.
SILENCE_S = 10

#: What a worker may take beyond: a batch that runs, one that is packed, one that is being written in all its forms.
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
def test_portions_hold_every_request_once_and_keep_to_the_limit(parcel, limit_bytes):
    parcel = [held(*widths) for widths in parcel]
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


def test_a_request_that_has_ended_holds_its_inputs_no_longer():
    batch = not_run(None, [])
    request = made_request({"x": np.zeros((1, 1 << 20))}, 1)
    batch.runs = [Run(requests=[request], outputs={}, axes=RowAxes([]))]
    Held.of(batch)
    assert request.inputs == {}


@pytest.fixture(scope="module")
def postgres():
    """A server of this module's own, since all its databases are silent together."""
    with tempfile.TemporaryDirectory(prefix="headrace-bytes-") as folder, Postgres(Path(folder) / "pg") as server:
        yield server


@pytest.fixture
def database_url(postgres, request):
    postgres.create_database(request.node.name)
    return postgres.url_of(request.node.name)


def signal_all(postgres: Postgres, number: int) -> None:
    """Send a signal to the server and all its sessions: stopped, it accepts connections and never answers."""
    for pid in (postgres.pid, *(child.pid for child in psutil.Process(postgres.pid).children(recursive=True))):
        os.kill(pid, number)


def test_while_postgres_is_silent_large_outputs_stay_within_the_bound(
    settings, models, start_worker, postgres, database_url
):
    write_package(
        models,
        "wide",
        [helper.make_node("Tile", ["x", "repeats"], ["y"])],
        {"x": ("FP32", (1,))},
        {"y": ("FP32", (WIDTH,))},
        [("repeats", np.array([1, WIDTH]))],
        extra='[store]\noutputs = "binary"\n[batching]\nmax_rows = 16\n',
    )
    with Client(settings) as client, start_worker(HEADRACE_OUTBOX_BYTES=str(OUTBOX_BYTES)) as process:
        client.predict("wide", {"x": np.ones((1, 1), np.float32)}, timeout_s=30)
        worker = psutil.Process(process.pid)
        before_bytes = worker.memory_info().rss
        signal_all(postgres, signal.SIGSTOP)
        try:
            handles = client.submit_many("wide", {"x": np.arange(REQUESTS, dtype=np.float32).reshape(-1, 1)})
            largest_bytes = 0
            end = time.monotonic() + SILENCE_S
            while time.monotonic() < end:
                largest_bytes = max(largest_bytes, worker.memory_info().rss)
                time.sleep(0.1)
        finally:
            signal_all(postgres, signal.SIGCONT)
        assert largest_bytes - before_bytes < BOUND_BYTES
        for number, handle in enumerate(handles):
            assert handle.result(timeout_s=60)["y"][0, -1] == number
    with psycopg.connect(database_url) as connection:
        count = "SELECT count(*) FROM predictions WHERE state = 'succeeded'"
        assert connection.execute(count).fetchall() == [(REQUESTS + 1,)]
