"""Layers around the run of a batch: their order, what they may change, and one more added from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.workers.conftest import StartWorker, running_worker
from tests.workers.example_request import made_request

from headrace.contracts import InferenceFailed, ModelDirectory, Settings, State
from headrace.producers import Client
from headrace.workers.batching import Reason
from headrace.workers.execution.layers.base import BatchContext, Layer, Next, Services, chain
from headrace.workers.execution.pipeline import build_pipeline
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import InferenceRequest, Outcome


class Worker:
    """Stands for the parts of a worker that layers use, and notes how they are used."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.events: list[str] = []
        self.ended: list[Outcome] = []

    def begin(self, tags: Mapping[str, Sequence[str]]) -> None:
        self.events.append("begin")

    def end(self, tags: Mapping[str, Sequence[str]]) -> None:
        self.events.append("end")

    def end_unrun(self, served: ServedModel, outcomes: list[Outcome]) -> None:
        self.ended += outcomes

    @property
    def services(self) -> Services:
        return Services(revoked=self.revoked, marker=self, end=self.end_unrun, max_retries=1, check_every=0)


class Consumer:
    id = "c"


@pytest.fixture
def served(models: Path) -> ServedModel:
    served = ServedModel(ModelDirectory(models).get("lookup"), device="cpu", threads=1)
    served.load()
    return served


def batch_of(served: ServedModel, *indices: int) -> BatchContext:
    requests = [made_request({"index": np.array([index], np.int64)}, 1) for index in indices]
    for request in requests:
        request.consumer = Consumer()  # type: ignore[assignment]
    return BatchContext(
        served=served, requests=requests, rows=len(requests), padded_rows=len(requests), reason=Reason.FULL
    )


def succeeded(verdict: Verdict) -> list[InferenceRequest]:
    return [request for run in verdict.runs for request in run.requests]


def test_the_first_layer_is_the_outermost(served: ServedModel) -> None:
    steps: list[str] = []

    def named(name: str) -> Layer:
        def layer(batch: BatchContext, following: Next, /) -> Verdict:
            steps.append(f"before {name}")
            verdict = following(batch)
            steps.append(f"after {name}")
            return verdict

        return layer

    def run(_: BatchContext) -> Verdict:
        steps.append("run")
        return Verdict([], [], [])

    chain([named("a"), named("b")], run)(batch_of(served, 1))
    assert steps == ["before a", "before b", "run", "after b", "after a"]


def test_a_layer_may_answer_without_the_model(served: ServedModel) -> None:
    answer = Verdict([], [], [])

    def cache(_batch: BatchContext, _following: Next, /) -> Verdict:
        return answer

    def fails(_: BatchContext) -> Verdict:
        raise AssertionError("the model is not asked")

    assert chain([cache], fails)(batch_of(served, 1)) is answer


def test_a_batch_runs_under_the_marker_and_teaches_the_cost_model(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, observed = Worker(), []
    monkeypatch.setattr(served, "observe", lambda rows, seconds: observed.append((rows, seconds > 0)))
    batch = batch_of(served, 1, 2, 3)
    verdict = build_pipeline(worker.services)(batch)
    assert succeeded(verdict) == batch.requests
    assert (verdict.rows, worker.events, observed) == (3, ["begin", "end"], [(3, True)])


def test_a_batch_with_an_offender_teaches_the_cost_model_nothing(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "observe", lambda _rows, _seconds: pytest.fail("it ran in pieces"))
    verdict = build_pipeline(Worker().services)(batch_of(served, 1, 99))
    assert (len(succeeded(verdict)), [outcome.state for outcome in verdict.outcomes]) == (1, [State.FAILED])


def test_requests_cancelled_before_the_run_leave_the_batch(served: ServedModel) -> None:
    worker = Worker()
    batch = batch_of(served, 1, 2, 3)
    worker.revoked.add(batch.requests[1].id)
    verdict = build_pipeline(worker.services)(batch)
    assert [outcome.request for outcome in worker.ended] == [batch.requests[1]]
    assert (succeeded(verdict), verdict.rows) == ([batch.requests[0], batch.requests[2]], 2)


def test_a_batch_that_was_cancelled_as_a_whole_is_not_run(served: ServedModel) -> None:
    worker = Worker()
    batch = batch_of(served, 1, 2)
    worker.revoked |= {request.id for request in batch.requests}
    verdict = build_pipeline(worker.services)(batch)
    assert (verdict.is_empty, worker.events, len(worker.ended)) == (True, [], 2)


@pytest.fixture
def traced(settings: Settings, tmp_path: Path) -> StartWorker:
    return lambda: running_worker(
        settings,
        tmp_path / "worker.log",
        app="tests.workers.traced_app",
        TRACE_FILE=str(tmp_path / "trace"),
    )


def test_a_tracing_layer_is_one_module_and_one_line(settings: Settings, traced: StartWorker, tmp_path: Path) -> None:
    with traced(), Client(settings) as client:
        client.predict("double", {"x": np.ones((3, 4), np.float32)}, timeout_s=60)
        with pytest.raises(InferenceFailed):
            client.predict("lookup", {"index": np.array([99])}, timeout_s=60)
    assert (tmp_path / "trace").read_text().splitlines() == [
        "double 1 rows=3 failed=0",
        "lookup 1 rows=1 failed=1",
    ]
