"""The view that Flower gets of bulk jobs: each attempt at a shard is a task, whose id can be revoked."""

from __future__ import annotations

import posixpath
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from headrace.contracts import HeadraceError
from headrace.contracts.jobs import score_queue, shard_id
from headrace.results_store.jobs.records import Claim, ShardResult
from headrace.workers.events.celery_events import Monitor


class Shown:
    """Announces shards as Celery tasks; any thread."""

    def __init__(self, monitor: Monitor, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """call_soon: runs a function on the main thread, which alone may use the monitor."""
        self._monitor = monitor
        self._call_soon = call_soon
        self._events: deque[tuple[str, float, dict[str, Any]]] = deque()

    def started(self, claim: Claim) -> None:
        """Show that a shard runs."""
        now, uuid = time.time(), str(shard_id(str(claim.job.id), claim.shard_no, claim.attempt))
        received = {
            "uuid": uuid,
            "name": score_queue(claim.job.spec.model),
            "args": line_of(claim),
            "kwargs": repr({"version": claim.job.version, "attempt": claim.attempt}),
            "retries": claim.attempt - 1,
            "eta": None,
            "expires": None,
        }
        self._show("task-received", now, **received)
        self._show("task-started", now, uuid=uuid)

    def ended(self, claim: Claim, outcome: ShardResult | HeadraceError | None, seconds: float) -> None:
        """Show what came of it: a result, an error, or None when it was given up."""
        now, uuid = time.time(), str(shard_id(str(claim.job.id), claim.shard_no, claim.attempt))
        if isinstance(outcome, ShardResult):
            result = result_of(outcome)
            self._show("task-succeeded", now, uuid=uuid, result=result, runtime=seconds)
        elif outcome is None:
            self._show("task-revoked", now, uuid=uuid, terminated=False, signum=None, expired=False)
        else:
            exception = f"{outcome.type}({outcome.message!r})"
            self._show("task-failed", now, uuid=uuid, exception=exception, traceback=None)

    def _show(self, kind: str, timestamp: float, **fields: Any) -> None:
        """Show events in the order of the calls; the event loop keeps none among what it is to run soon."""
        self._events.append((kind, timestamp, fields))
        self._call_soon(self._show_next)

    def _show_next(self) -> None:
        kind, timestamp, fields = self._events.popleft()
        self._monitor.show(kind, timestamp, **fields)


def line_of(claim: Claim) -> str:
    """Return the line of a shard, such as `reviews.parquet → embed 3, shard 12, rows 600,000-649,999`."""
    part = claim.slice
    uri = claim.files[0].uri if claim.files else ""
    name = posixpath.basename(uri) + (f" and {part.files - 1} more" if part.files > 1 else "")
    rows = f", rows {part.row_start:,}-{part.row_start + part.rows - 1:,}" if part.rows > 0 and part.files == 1 else ""
    return f"{name} → {claim.job.spec.model} {claim.job.version}, shard {claim.shard_no}{rows}"


def result_of(result: ShardResult) -> str:
    """Return what came of a shard in a line."""
    bad = f", {result.rows_bad:,} bad" if result.rows_bad else ""
    skipped = f", {result.rows_skipped:,} skipped" if result.rows_skipped else ""
    rest = ", the rest left to another shard" if result.rest is not None else ""
    return f"{result.rows_ok:,} rows{bad}{skipped}{rest}"
