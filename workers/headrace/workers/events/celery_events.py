"""Celery events of micro-batches and requests: all batches, and requests one by one up to a rate."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

from celery.worker import state as celery_state

from headrace.contracts import State
from headrace.contracts.message import TASK_PREFIX
from headrace.workers.events.active_view import ActiveView
from headrace.workers.events.batch_summary import BatchSummary
from headrace.workers.events.rate_limit import RateLimit
from headrace.workers.events.wording import counted
from headrace.workers.request import FinishedBatch, InferenceRequest, ModelRef, Outcome

#: Events are gathered for this long and go out as one message: publishing costs 30 times what making an event does.
GATHER_S: Final = 0.1

#: Name of the pseudo-task under which Flower shows micro-batches of a model.
BATCH_PREFIX: Final = "batch."

#: Name of the pseudo-task under which Flower shows that a check of a model failed.
CHECK_PREFIX: Final = "check."

#: Micro-batches of a worker that are shown one by one; what goes beyond is summed up, one pseudo-task a model for each
#: GATHER_S. A tiny model makes hundreds of batches a second, and each costs Flower about 0.25 ms.
BATCHES_PER_S: Final = 50.0

_served_of: Final = attrgetter("served")


class Dispatcher(Protocol):
    """The part of Celery's event dispatcher that is used."""

    enabled: bool
    buffer_limit: int

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 — Celery's name
        """Buffer one event."""


class Monitor:
    """Publishes the worker's batches and requests as Celery events and counters, on the worker's main thread.

    dispatcher: changes with every connection of the consumer; None while there is none.
    """

    def __init__(self, events_per_s: float, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """events_per_s: requests shown one by one; failures have a budget of the same size for themselves.

        call_later: runs a function on the main thread after some seconds.
        """
        self.dispatcher: Dispatcher | None = None
        self._call_later = call_later
        self._gathered: list[tuple[str, dict[str, Any]]] = []
        self._summed: dict[ModelRef, BatchSummary] = {}
        self._due = False
        self._views: dict[ModelRef, ActiveView] = {}
        self._requests = RateLimit(events_per_s)
        self._failures = RateLimit(events_per_s)
        self._batches = RateLimit(BATCHES_PER_S)

    def received(self, requests: Sequence[InferenceRequest]) -> None:
        """Announce requests that were accepted, as many as the rate allows; the others are marked as not traced."""
        for served, count in Counter(map(_served_of, requests)).items():
            self._held(served, count)
        if not self._on:
            return
        now = time.time()
        for request in requests[: self._requests.take(len(requests), time.monotonic())]:
            request.traced = True
            self._send_received(request, now)

    def settled(self, batches: Sequence[FinishedBatch]) -> None:
        """Announce and count batches whose rows are committed."""
        for batch in batches:
            self._count(batch)
            if not self._on:
                continue
            parent = self._show_batch(batch)
            if batch.dependence:
                self._send_dependence(batch)
            for run in batch.runs:
                for request in run.requests:
                    if request.traced:
                        self._send_succeeded(request, batch, parent)
            for outcome in self._shown(batch.outcomes):
                self._send_ended(outcome, batch, parent)

    def show(self, kind: str, timestamp: float, **fields: Any) -> None:
        """Announce an event of a task that is none of the requests."""
        if self._on:
            self._send(kind, timestamp, **fields)

    def flush(self) -> None:
        """Send the gathered events as one message."""
        summed, self._summed = self._summed, {}
        for batches in summed.values():
            self._send_batch(batches)
        events, self._gathered = self._gathered, []
        self._due = False
        if self.dispatcher is None:
            return
        # Celery's dispatcher gathers too, until the event loop's next turn or its limit of 24.
        self.dispatcher.buffer_limit = max(self.dispatcher.buffer_limit, len(events) + 1)
        for kind, fields in events:
            self.dispatcher.send(kind, **fields)

    @property
    def _on(self) -> bool:
        return self.dispatcher is not None and self.dispatcher.enabled

    def _held(self, served: ModelRef, requests: int) -> None:
        view = self._views.get(served)
        if view is None:
            view = self._views[served] = ActiveView(served)
        view.add(requests)

    def _count(self, batch: FinishedBatch) -> None:
        for name, count in _names(batch).items():
            celery_state.total_count[name] += count
            celery_state.all_total_count[0] += count
        if batch.served is None:
            return
        if batch.batch_id is not None:
            celery_state.total_count[BATCH_PREFIX + batch.served.package.name] += 1
            self._held(batch.served, -batch.requests - len(batch.deferred))
        else:
            # Those that the intake refused were never held; they have no rows.
            self._held(batch.served, -sum(outcome.request.rows > 0 for outcome in batch.outcomes))

    def _shown(self, outcomes: Sequence[Outcome]) -> Iterable[Outcome]:
        """Return the outcomes to show: all that were announced, so that none seems to run for ever, and some others."""
        if not outcomes:
            return ()
        others = sum(not outcome.request.traced for outcome in outcomes)
        allowed = self._failures.take(others, time.monotonic()) if others else 0
        if allowed == others:
            return outcomes
        surprising = [outcome for outcome in outcomes if not outcome.request.traced][:allowed]
        return [*(outcome for outcome in outcomes if outcome.request.traced), *surprising]

    def _show_batch(self, batch: FinishedBatch) -> str | None:
        """Announce a micro-batch, or add it to a sum; return the id under which Flower knows it."""
        if batch.served is None or batch.batch_id is None:
            return None
        if self._batches.take(1, time.monotonic()):
            one = BatchSummary(batch.served, str(batch.batch_id), batch.started_at)
            one.add(batch)
            self._send_batch(one)
            return one.id
        batches = self._summed.get(batch.served)
        if batches is None:
            self._flush_later()
            batches = self._summed[batch.served] = BatchSummary(batch.served, str(batch.batch_id), batch.started_at)
        batches.add(batch)
        return batches.id

    def _flush_later(self) -> None:
        if not self._due:
            self._due = True
            self._call_later(GATHER_S, self.flush)

    def _send(self, kind: str, timestamp: float, **fields: Any) -> None:
        self._flush_later()
        self._gathered.append((kind, {"timestamp": timestamp, **fields}))

    def _send_batch(self, batches: BatchSummary) -> None:
        self._send(
            "task-received",
            batches.started_at,
            uuid=batches.id,
            name=BATCH_PREFIX + batches.served.package.name,
            args=batches.args,
            kwargs=batches.kwargs,
            retries=0,
            eta=None,
            expires=None,
        )
        self._send("task-started", batches.started_at, uuid=batches.id)
        self._send(
            "task-succeeded", batches.finished_at, uuid=batches.id, result=batches.result, runtime=batches.seconds
        )

    def _send_dependence(self, batch: FinishedBatch) -> None:
        """Announce a failed check of a model's rows as a pseudo-task that failed."""
        assert batch.served is not None
        package, check = batch.served.package, str(uuid.uuid4())
        args = f"version {package.version}: each request runs alone from now on"
        fields: dict[str, Any] = {"args": args, "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
        self._send("task-received", batch.started_at, uuid=check, name=CHECK_PREFIX + package.name, **fields)
        self._send("task-started", batch.started_at, uuid=check)
        exception = f"RowsDependent({batch.dependence!r})"
        self._send("task-failed", batch.finished_at, uuid=check, exception=exception, traceback=None)

    def _send_received(self, request: InferenceRequest, at: float) -> None:
        # A request that the intake refused has no rows that could be counted.
        fields: dict[str, object] = {"rows": request.rows} if request.rows else {}
        fields["priority"] = request.priority
        if request.served is not None:
            fields["version"] = request.served.package.version
        self._send(
            "task-received",
            at,
            uuid=request.id,
            name=TASK_PREFIX + request.model,
            args=request.note,
            kwargs=repr(fields),
            retries=request.attempts - 1,
            eta=None,
            expires=None,
        )

    def _send_succeeded(self, request: InferenceRequest, batch: FinishedBatch, parent: str | None) -> None:
        self._send("task-started", batch.started_at, uuid=request.id, parent_id=parent)
        self._send(
            "task-succeeded",
            batch.finished_at,
            uuid=request.id,
            parent_id=parent,
            result=f"{counted(request.rows, 'row')} in a batch of {counted(batch.rows, 'row')}",
            runtime=batch.seconds,
        )

    def _send_ended(self, outcome: Outcome, batch: FinishedBatch, parent: str | None) -> None:
        request = outcome.request
        if not request.traced:
            self._send_received(request, batch.started_at)
        if parent is not None:
            self._send("task-started", batch.started_at, uuid=request.id, parent_id=parent)
        exception = f"{outcome.error.type}({outcome.error.message!r})"
        ended: dict[str, Any] = {"uuid": request.id, "parent_id": parent, "exception": exception}
        if outcome.state is State.FAILED:
            self._send("task-failed", batch.finished_at, **ended, traceback=None)
        else:
            expired = outcome.state is State.EXPIRED
            self._send("task-revoked", batch.finished_at, **ended, terminated=False, signum=None, expired=expired)


def _names(batch: FinishedBatch) -> dict[str, int]:
    """Count the requests of a batch by task name."""
    counts: dict[str, int] = {}
    if batch.served is not None:
        counts[batch.served.queue] = batch.requests
        return counts
    for outcome in batch.outcomes:
        name = TASK_PREFIX + outcome.request.model
        counts[name] = counts.get(name, 0) + 1
    return counts
