"""What Flower, `celery inspect` and `celery events` see: every micro-batch, and requests one by one up to a rate."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from celery.worker import state as celery_state

from headrace.contracts import State
from headrace.workers.lane import Lane
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome

#: Events are gathered for this long and go out as one message: publishing costs 30 times what making an event does.
GATHER_S: Final = 0.1

#: Name of the pseudo-task under which Flower shows micro-batches of a model.
BATCH_PREFIX: Final = "batch."


class Dispatcher(Protocol):
    """The part of Celery's event dispatcher that is used."""

    enabled: bool
    buffer_limit: int

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 — Celery's name
        """Buffer one event."""


class RateLimit:
    """A token bucket: `rate_per_s` on average, and at most one second's worth at once."""

    def __init__(self, rate_per_s: float) -> None:
        """Start full."""
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._filled_at = 0.0

    def take(self, wanted: int, now: float) -> int:
        """Give how many of `wanted` are allowed at time `now` (monotonic seconds)."""
        self._tokens = min(self._rate_per_s, self._tokens + (now - self._filled_at) * self._rate_per_s)
        self._filled_at = now
        allowed = min(wanted, int(self._tokens))
        self._tokens -= allowed
        return allowed


class LaneView:
    """Stands for what a lane holds or runs in `celery inspect reserved` and `active`."""

    def __init__(self, lane: Lane) -> None:
        """Describe a lane; `args` is kept up to date by the monitor."""
        self.id = str(uuid.uuid4())
        self.name = lane.queue
        self.args = ""
        self.time_start: float | None = None
        # Celery sets this on what it finds among reserved requests after a reconnect.
        self.eventer: object = None

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 — Celery's interface
        """Describe the lane in the form of a Celery request."""
        return {
            "id": self.id,
            "name": self.name,
            "type": self.name,
            "args": self.args,
            "kwargs": {},
            "hostname": None,
            "time_start": self.time_start,
            "acknowledged": False,
            "delivery_info": {"exchange": "", "routing_key": self.name, "priority": 0, "redelivered": False},
            "worker_pid": os.getpid(),
        }


class Monitor:
    """Turns what happens in the worker into Celery events and counters. Runs on the worker's main thread.

    dispatcher: changes with every connection of the consumer; None while there is none.
    call_later: runs a function on the main thread after some seconds; set while Celery's event loop runs.
    """

    def __init__(self, events_per_s: float) -> None:
        """events_per_s: requests shown one by one; failures have a budget of the same size for themselves."""
        self.dispatcher: Dispatcher | None = None
        self.call_later: Callable[[float, Callable[[], None]], object] | None = None
        self._gathered: list[tuple[str, dict[str, Any]]] = []
        self._requests = RateLimit(events_per_s)
        self._failures = RateLimit(events_per_s)

    def received(self, requests: Sequence[InferenceRequest]) -> None:
        """Announce requests that were accepted, as many as the rate allows; the others are marked as not traced."""
        if not self._on:
            return
        for request in requests[: self._requests.take(len(requests), time.monotonic())]:
            request.traced = True
            self._send_received(request)

    def settled(self, batches: Sequence[FinishedBatch]) -> None:
        """Announce and count batches whose rows are committed."""
        for batch in batches:
            for name, count in _names(batch).items():
                celery_state.total_count[name] += count
                celery_state.all_total_count[0] += count
            if not self._on:
                continue
            if batch.batch_id is not None:
                self._send_batch(batch)
            for run in batch.runs:
                for request in run.requests:
                    if request.traced:
                        self._send_succeeded(request, batch)
            shown = self._failures.take(len(batch.outcomes), time.monotonic())
            for outcome in batch.outcomes[:shown]:
                self._send_ended(outcome, batch)

    @property
    def _on(self) -> bool:
        return self.dispatcher is not None and self.dispatcher.enabled

    def _send(self, kind: str, **fields: Any) -> None:
        fields.setdefault("timestamp", time.time())
        if not self._gathered and self.call_later is not None:
            self.call_later(GATHER_S, self.flush)
        self._gathered.append((kind, fields))

    def flush(self) -> None:
        """Send what was gathered, as one message."""
        events, self._gathered = self._gathered, []
        if self.dispatcher is None:
            return
        # Celery's dispatcher gathers too, until the event loop's next turn or its limit of 24.
        self.dispatcher.buffer_limit = max(self.dispatcher.buffer_limit, len(events) + 1)
        for kind, fields in events:
            self.dispatcher.send(kind, **fields)

    def _send_received(self, request: InferenceRequest) -> None:
        self._send(
            "task-received",
            uuid=request.id,
            name="infer." + request.model,
            args=request.note,
            kwargs="{}",
            root_id=request.id,
            parent_id=None,
            retries=request.attempts - 1,
            eta=None,
            expires=None,
        )

    def _send_batch(self, batch: FinishedBatch) -> None:
        assert batch.lane is not None
        identity = str(batch.batch_id)
        note = f"{batch.rows} rows, {batch.requests} requests, {batch.reason}"
        self._send(
            "task-received",
            uuid=identity,
            name=BATCH_PREFIX + batch.lane.package.name,
            args=note,
            kwargs=f"{{'version': '{batch.lane.package.version}', 'reason': '{batch.reason}', 'rows': {batch.rows}}}",
            root_id=identity,
            parent_id=None,
            retries=0,
            eta=None,
            expires=None,
            timestamp=batch.started_at,
        )
        self._send("task-started", uuid=identity, timestamp=batch.started_at)
        result = f"{batch.requests - len(batch.outcomes)} succeeded, {len(batch.outcomes)} failed, {batch.reason}"
        self._send("task-succeeded", uuid=identity, result=result, runtime=batch.seconds, timestamp=batch.finished_at)

    def _send_succeeded(self, request: InferenceRequest, batch: FinishedBatch) -> None:
        self._send("task-started", uuid=request.id, timestamp=batch.started_at)
        self._send(
            "task-succeeded",
            uuid=request.id,
            result=f"{request.rows} rows in batch {batch.batch_id}",
            runtime=batch.seconds,
            timestamp=batch.finished_at,
        )

    def _send_ended(self, outcome: Outcome, batch: FinishedBatch) -> None:
        request = outcome.request
        if not request.traced:
            self._send_received(request)
        if outcome.state is State.FAILED:
            exception = f"{outcome.error.type}({outcome.error.message!r})"
            self._send("task-failed", uuid=request.id, exception=exception, traceback="", timestamp=batch.finished_at)
        else:
            self._send(
                "task-revoked", uuid=request.id, terminated=False, signum=None, expired=outcome.state is State.EXPIRED
            )


def _names(batch: FinishedBatch) -> dict[str, int]:
    """Count the requests of a batch by task name."""
    counts: dict[str, int] = {}
    if batch.lane is not None:
        counts[batch.lane.queue] = batch.requests
        return counts
    for outcome in batch.outcomes:
        name = "infer." + outcome.request.model
        counts[name] = counts.get(name, 0) + 1
    return counts
