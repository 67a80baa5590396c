"""What the worker tells Celery's event consumers: recorded by a dispatcher that sends nothing."""

from __future__ import annotations

import ast
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery.events.state import State as EventState
from celery.worker import state as celery_state
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import Cancelled, DeadlineExceeded, HeadraceError, ModelDirectory, SignatureMismatch, State
from headrace.contracts.ids import new_id
from headrace.contracts.message import RequestHeader
from headrace.contracts.tensors.rows import RowAxes
from headrace.workers.events.celery_events import BATCHES_PER_S, GATHER_S, Monitor
from headrace.workers.events.rate_limit import RateLimit
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome, Run


class Recorder:
    """Takes the place of Celery's dispatcher."""

    enabled = True
    buffer_limit = 24

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, type: str, **fields: object) -> None:  # noqa: A002 — Celery's name
        self.events.append({"type": type, **fields})

    def of(self, identity: object) -> list[dict[str, Any]]:
        return [event for event in self.events if event["uuid"] == str(identity)]

    def state(self) -> Any:
        """What Flower makes of it; celery's stubs leave out its tasks."""
        state = EventState()
        for clock, event in enumerate(self.events):
            state.event({"hostname": "w", "clock": clock, "local_received": event["timestamp"], **event})
        return state


@pytest.fixture(autouse=True)
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Celery's counters are those of the process; give this test its own."""
    monkeypatch.setattr(celery_state, "total_count", type(celery_state.total_count)())
    monkeypatch.setattr(celery_state, "all_total_count", [0])
    yield
    celery_state.active_requests.clear()
    celery_state.reserved_requests.clear()


@pytest.fixture
def served(models: Path) -> ServedModel:
    return ServedModel(ModelDirectory(models).get("double"), device="cpu", threads=1)


def monitor_of(events_per_s: float = 50.0) -> tuple[Monitor, Recorder]:
    monitor = Monitor(events_per_s, lambda _seconds, _function: None)
    monitor.dispatcher = Recorder()
    return monitor, monitor.dispatcher


def request_of(served: ServedModel, rows: int = 1, **fields: Any) -> InferenceRequest:
    known: dict[str, Any] = {
        "id": new_id(),
        "row_id": uuid.uuid4(),
        "model": "double",
        "served": served,
        "consumer": None,
        "tag": "1:infer.double",
        "header": RequestHeader(),
        "inputs": {},
        "rows": rows,
        "priority": 0,
        "deadline": None,
        "submitted_at": 90.0,
        "attempts": 1,
        "celery_result": False,
        "note": "double, 1 row",
    }
    return InferenceRequest(**(known | fields))


def batch_of(
    served: ServedModel, requests: Sequence[InferenceRequest], outcomes: Sequence[Outcome] = (), **fields: Any
) -> FinishedBatch:
    known: dict[str, Any] = {
        "served": served,
        "batch_id": uuid.uuid4(),
        "rows": sum(request.rows for request in requests) + sum(outcome.request.rows for outcome in outcomes),
        "reason": "full",
        "started_at": 100.0,
        "finished_at": 100.5,
        "seconds": 0.25,
        "runs": [Run(requests=list(requests), outputs={}, axes=RowAxes(()))],
        "outcomes": list(outcomes),
    }
    return FinishedBatch(**(known | fields))


def refused(served: ServedModel, outcome: Outcome) -> FinishedBatch:
    return batch_of(served, [], [outcome], batch_id=None, reason="", runs=[], finished_at=100.0, seconds=0.0)


def ended(request: InferenceRequest, state: State, error: HeadraceError) -> Outcome:
    return Outcome(request=request, state=state, error=error)


def test_a_micro_batch_is_a_task_with_size_reason_and_seconds(served: ServedModel) -> None:
    monitor, recorder = monitor_of()
    requests = [request_of(served, rows) for rows in (1, 2)]
    batch = batch_of(served, requests)
    monitor.received(requests)
    monitor.settled([batch])
    monitor.flush()
    received, started, succeeded = recorder.of(batch.batch_id)
    assert (received["name"], received["args"]) == ("batch.double", "3 rows of 2 requests")
    assert ast.literal_eval(received["kwargs"]) == {
        "rows": 3,
        "requests": 2,
        "reason": "full",
        "seconds": 0.25,
        "version": "1",
    }
    assert (started["type"], started["timestamp"]) == ("task-started", 100.0)
    assert (succeeded["type"], succeeded["runtime"], succeeded["result"]) == ("task-succeeded", 0.25, "2 succeeded")


def test_a_model_whose_rows_were_found_dependent_is_a_failed_check(served: ServedModel) -> None:
    monitor, recorder = monitor_of()
    batch = batch_of(served, [request_of(served)], dependence="output 'y' differs: by 0.5, its values being up to 1")
    monitor.settled([batch])
    monitor.flush()
    check = next(event["uuid"] for event in recorder.events if event.get("name") == "check.double")
    received, _, failed = recorder.of(check)
    assert received["args"] == "version 1: each request runs alone from now on"
    assert failed["type"] == "task-failed"
    assert "output 'y' differs" in failed["exception"]
    assert recorder.state().tasks[check].state == "FAILURE"


def test_a_request_is_the_child_of_its_micro_batch(served: ServedModel) -> None:
    monitor, recorder = monitor_of()
    request = request_of(served)
    batch = batch_of(served, [request])
    monitor.received([request])
    monitor.settled([batch])
    monitor.flush()
    state = recorder.state()
    shown, parent = state.tasks[request.id], state.tasks[str(batch.batch_id)]
    assert shown.parent is parent
    assert list(parent.children) == [shown]
    assert (shown.state, shown.result, shown.runtime) == ("SUCCESS", "1 row in a batch of 1 row", 0.25)
    assert ast.literal_eval(shown.kwargs) == {"rows": 1, "priority": 0, "version": "1"}


def test_more_micro_batches_than_the_budget_are_summed_up_and_none_is_missed(served: ServedModel) -> None:
    monitor, recorder = monitor_of(events_per_s=0)
    scheduled = []
    monitor._call_later = lambda seconds, function: scheduled.append((seconds, function))
    singly = int(BATCHES_PER_S)
    requests = [request_of(served) for _ in range(4 * singly)]
    monitor.received(requests)
    monitor.settled([batch_of(served, [request]) for request in requests])
    ((seconds, flush),) = scheduled
    assert seconds == GATHER_S
    flush()
    shown = [event for event in recorder.events if event["type"] == "task-received"]
    counts = [ast.literal_eval(event["kwargs"]) for event in shown]
    assert sum(count["requests"] for count in counts) == len(requests)
    assert sum(count.get("batches", 1) for count in counts) == len(requests)
    assert len(shown) <= 2 * singly
    *_, rest = counts
    assert rest["reasons"] == {"full": rest["batches"]}
    assert shown[-1]["args"] == f"{rest['batches']} batches: {rest['rows']} rows of {rest['requests']} requests"
    assert recorder.events[-1]["runtime"] == pytest.approx(0.25 * rest["batches"])
    assert len(scheduled) == 1, "a flush must not schedule another one"


def test_requests_are_sampled_and_counted_in_full(served: ServedModel) -> None:
    monitor, recorder = monitor_of(events_per_s=5)
    requests = [request_of(served) for _ in range(100)]
    monitor.received(requests)
    monitor.settled([batch_of(served, requests)])
    monitor.flush()
    shown = {event["uuid"] for event in recorder.events if event.get("name") == "infer.double"}
    assert 5 <= len(shown) < 100
    assert shown == {request.id for request in requests if request.traced}
    assert recorder.state().tasks[requests[0].id].state == "SUCCESS"
    assert celery_state.total_count == {"infer.double": 100, "batch.double": 1}
    assert celery_state.all_total_count == [100]


def test_a_refused_request_shows_its_error_and_ends_no_earlier_than_it_came(served: ServedModel) -> None:
    monitor, recorder = monitor_of(events_per_s=1)
    request = request_of(served, rows=0)
    monitor.settled([refused(served, ended(request, State.FAILED, SignatureMismatch("wrong shape")))])
    monitor.flush()
    received, failed = recorder.of(request.id)
    assert received["timestamp"] <= failed["timestamp"]
    assert (failed["type"], failed["exception"]) == ("task-failed", "SignatureMismatch('wrong shape')")
    assert failed["traceback"] is None
    assert ast.literal_eval(received["kwargs"]) == {"priority": 0, "version": "1"}


def test_a_failure_inside_a_batch_belongs_to_it(served: ServedModel) -> None:
    monitor, recorder = monitor_of()
    good, bad = request_of(served), request_of(served)
    monitor.received([good, bad])
    batch = batch_of(served, [good], [ended(bad, State.FAILED, SignatureMismatch("odd"))])
    monitor.settled([batch])
    monitor.flush()
    assert recorder.of(batch.batch_id)[-1]["result"] == "1 succeeded, 1 failed"
    assert [event["type"] for event in recorder.of(bad.id)] == ["task-received", "task-started", "task-failed"]
    assert recorder.of(bad.id)[-1]["parent_id"] == str(batch.batch_id)


@pytest.mark.parametrize(
    ("state", "error", "expired"),
    [(State.CANCELLED, Cancelled(), False), (State.EXPIRED, DeadlineExceeded(), True)],
)
def test_cancelled_and_expired_requests_are_revoked_and_say_which(
    served: ServedModel, state: State, error: HeadraceError, expired: bool
) -> None:
    monitor, recorder = monitor_of()
    request = request_of(served)
    monitor.received([request])
    monitor.settled([refused(served, ended(request, state, error))])
    monitor.flush()
    *_, revoked = recorder.of(request.id)
    assert (revoked["type"], revoked["expired"]) == ("task-revoked", expired)
    assert revoked["exception"].startswith(type(error).__name__)


def test_a_flood_of_failures_is_sampled_but_no_announced_request_stays_open(served: ServedModel) -> None:
    monitor, recorder = monitor_of(events_per_s=3)
    requests = [request_of(served) for _ in range(500)]
    monitor.received(requests)
    error = SignatureMismatch("odd")
    monitor.settled([batch_of(served, [], [ended(request, State.FAILED, error) for request in requests], runs=[])])
    monitor.flush()
    failed = {event["uuid"] for event in recorder.events if event["type"] == "task-failed"}
    assert failed >= {request.id for request in requests if request.traced}
    assert len(failed) < 100


def test_celery_takes_a_model_for_active_as_long_as_it_holds_requests(served: ServedModel) -> None:
    monitor, _ = monitor_of()
    requests = [request_of(served) for _ in range(3)]
    monitor.received(requests)
    (view,) = celery_state.active_requests
    assert (view.info()["name"], view.info()["args"]) == ("infer.double", "3 requests in this worker")
    monitor.settled([refused(served, ended(request_of(served, rows=0), State.FAILED, SignatureMismatch("no")))])
    monitor.settled([batch_of(served, requests[:2])])
    assert view.info()["args"] == "1 request in this worker"
    monitor.settled([refused(served, ended(requests[2], State.EXPIRED, DeadlineExceeded()))])
    assert (list(celery_state.active_requests), list(celery_state.reserved_requests)) == ([], [])


def test_without_an_event_consumer_all_is_counted_and_nothing_kept(served: ServedModel) -> None:
    monitor, recorder = monitor_of()
    monitor.dispatcher = None
    requests = [request_of(served) for _ in range(3)]
    monitor.received(requests)
    monitor.settled([batch_of(served, requests)])
    monitor.flush()
    monitor.dispatcher = recorder
    monitor.flush()
    assert recorder.events == []
    assert celery_state.all_total_count == [3]
    assert not any(request.traced for request in requests)


@given(
    rate=st.floats(0, 1000),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3000)), min_size=1, max_size=50),
)
def test_a_rate_is_never_exceeded_and_never_withheld(rate: float, steps: list[tuple[float, int]]) -> None:
    limit = RateLimit(rate)
    now, given_out, asked = 0.0, 0, 0
    for elapsed_s, wanted in steps:
        now += elapsed_s
        allowed = limit.take(wanted, now)
        assert 0 <= allowed <= wanted
        given_out += allowed
        asked += wanted
    burst = max(1.0, rate) if rate else 0.0
    assert given_out <= burst + rate * now + 1e-6 * (1 + given_out)
    if asked <= int(burst):
        assert given_out == asked


def test_a_rate_below_one_allows_one_now_and_then() -> None:
    limit = RateLimit(0.5)
    assert [limit.take(1, float(second)) for second in range(6)] == [1, 0, 1, 0, 1, 0]
