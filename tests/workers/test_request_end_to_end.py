"""The whole way of a request, through real Valkey, a real worker process and real Postgres."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.workers.conftest import StartWorker
from tests.workers.predictions import outputs_of, prediction_of

from headrace.contracts import HeadraceError, InputRefused, Settings, SignatureMismatch, Tensors, UnknownModel
from headrace.producers.client import Client
from headrace.results_store.celery_backend import PredictionBackend

FOUR = np.arange(4, dtype=np.float32)[None]


def rows(
    url: str, query: str = "SELECT id, model, state, outputs, error FROM predictions ORDER BY id"
) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def bare_client(settings: Settings, tmp_path: Path) -> Iterator[Client]:
    """A client that can't read the model directory, so that the worker must check what it sends."""
    with Client(settings.model_copy(update={"models": tmp_path / "nowhere"})) as client:
        yield client


def test_a_request_comes_back_and_its_row_was_committed_first(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(settings) as client:
        handle = client.submit("double", {"x": FOUR})
        assert handle.result(timeout_s=60)["y"].tolist() == (2 * FOUR).tolist()
        assert rows(settings.require_database_url()) == [
            (uuid.UUID(handle.id), "double", "succeeded", {"y": [[0.0, 2.0, 4.0, 6.0]]}, None)
        ]
        prediction = prediction_of(client, handle.id)
        assert outputs_of(client, handle.id)["y"].dtype == np.float32
        assert (prediction.batch_rows, prediction.version, prediction.attempts) == (1, "1", 1)


def test_many_requests_share_batches_and_each_gets_its_own_rows(settings: Settings, start_worker: StartWorker) -> None:
    inputs = np.random.default_rng(0).random((500, 4), dtype=np.float32)
    with start_worker(), Client(settings) as client:
        handles = client.submit_many("double", {"x": inputs})
        results = np.concatenate([handle.result(timeout_s=60)["y"] for handle in handles])
        np.testing.assert_array_equal(results, 2 * inputs)
        ((count, batches, largest),) = rows(
            settings.require_database_url(),
            "SELECT count(*), count(DISTINCT batch_id), max(batch_rows) FROM predictions",
        )
        assert count == 500
        assert batches <= 60
        assert largest <= 64


def test_a_failing_request_fails_alone(settings: Settings, start_worker: StartWorker) -> None:
    index = np.array([1, 2, 99, 4, 5], dtype=np.int64)
    with start_worker(), Client(settings) as client:
        handles = client.submit_many("lookup", {"index": index})
        assert [handles[i].result(timeout_s=60)["y"].tolist() for i in (0, 1, 3, 4)] == [[1], [2], [4], [5]]
        with pytest.raises(InputRefused, match="Gather node") as caught:
            handles[2].result(timeout_s=60)
        assert caught.value.request_id == handles[2].id


@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        ("nobody", {"x": FOUR}, UnknownModel, "nobody"),
        ("double", {"z": FOUR}, SignatureMismatch, "'z' is unknown"),
        ("double", {"x": FOUR.astype(np.float64)}, SignatureMismatch, "must be FP32, but is FP64"),
        ("double", {"x": np.ones((1, 5), np.float32)}, SignatureMismatch, "[rows, 4]"),
        ("double", {"x": np.full((1, 4), np.nan, np.float32)}, SignatureMismatch, "NaN"),
    ],
)
def test_bad_input_ends_as_a_failed_row_and_the_worker_goes_on(
    settings: Settings,
    start_worker: StartWorker,
    bare_client: Client,
    model: str,
    inputs: Tensors,
    error: type[HeadraceError],
    words: str,
) -> None:
    if model == "nobody":
        # Queued for a model that the worker consumes for, but whose package can't be read.
        (settings.models / "nobody" / "1").mkdir(parents=True)
        (settings.models / "nobody" / "1" / "model.toml").write_text("name = 1")
        error, words = HeadraceError, "model.toml"
    with start_worker():
        handle = bare_client.submit(model, inputs)
        with pytest.raises(error) as caught:
            handle.result(timeout_s=60)
        assert words in caught.value.message
        assert caught.value.request_id == handle.id
        assert bare_client.submit("double", {"x": FOUR}).result(timeout_s=60)["y"].shape == (1, 4)
    states = rows(settings.require_database_url(), "SELECT state, error->>'type' FROM predictions ORDER BY id")
    assert states == [("failed", type(caught.value).__name__), ("succeeded", None)]


def test_shapes_that_vary_are_batched_by_shape(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(settings) as client:
        handles = [client.submit("total", {"x": np.ones((1, n % 7 + 1), np.float32)}) for n in range(50)]
        assert [h.result(timeout_s=60)["y"].tolist() for h in handles] == [[float(n % 7 + 1)] for n in range(50)]


def test_strings_go_in_and_out(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(settings) as client:
        outputs = client.predict("echo", {"text": [["héadrace"]]}, timeout_s=60)
        assert outputs["same"].tolist() == [["héadrace".encode()]]


def test_a_request_larger_than_a_batch_runs_in_pieces(settings: Settings, start_worker: StartWorker) -> None:
    inputs = np.random.default_rng(0).random((1000, 4), dtype=np.float32)
    with start_worker(), Client(settings) as client:
        np.testing.assert_array_equal(client.predict("double", {"x": inputs}, timeout_s=60)["y"], 2 * inputs)


PLAIN_CELERY = """
import sys
from celery import Celery
app = Celery(broker=sys.argv[1], backend=sys.argv[1])
result = app.send_task("infer.double", kwargs={"inputs": {"x": [[1, 2, 3, 4]]}}, queue="infer.double")
print(result.get(timeout=60))
bad = app.send_task("infer.double", kwargs={"inputs": {"x": [["a"]]}}, queue="infer.double")
try:
    bad.get(timeout=60)
except Exception as exc:
    print(type(exc).__name__, exc)
assert not any(name.startswith("headrace") for name in sys.modules if name != "headrace.queueing.registration"
               and name not in ("headrace", "headrace.queueing", "headrace.queueing.keys"))
"""


def test_a_plain_celery_client_gets_its_prediction(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker():
        done = subprocess.run(
            [sys.executable, "-c", PLAIN_CELERY, settings.require_broker_url()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "{'y': [[2.0, 4.0, 6.0, 8.0]]}"
    assert second.startswith("SignatureMismatch input 'x' must be FP32")


def test_async_result_in_any_celery_app_gives_our_result(settings: Settings, start_worker: StartWorker) -> None:
    from celery import Celery

    backend = "headrace+" + settings.require_database_url()
    with (
        Celery("peer", broker=settings.require_broker_url(), backend=backend, set_as_current=False) as app,
        start_worker(),
        Client(settings) as client,
    ):
        handle = client.submit("double", {"x": FOUR})
        assert app.AsyncResult(handle.id).get(timeout=60) == {"y": [[0.0, 2.0, 4.0, 6.0]]}
        sent = app.send_task("infer.double", queue="infer.double", kwargs={"inputs": {"x": [[1, 2, 3, 4]]}})
        assert sent.get(timeout=60) == {"y": [[2.0, 4.0, 6.0, 8.0]]}
        assert app.AsyncResult(handle.id).state == "SUCCESS"
        assert isinstance(app.backend, PredictionBackend)
        app.backend.close()
