"""Finished batches of requests that ended, or have to wait, without a model."""

from __future__ import annotations

import time
from typing import Final

from headrace.contracts import HeadraceError, State
from headrace.workers.request import AlreadyStored, Deferred, FinishedBatch, InferenceRequest, ModelRef, Outcome

#: Reason code of what ends without a model: expired, cancelled or of a model that can't be loaded.
NOT_RUN: Final = ""


def not_run(served: ModelRef | None, outcomes: list[Outcome]) -> FinishedBatch:
    """Bundle requests that end without a model."""
    now = time.time()
    return FinishedBatch(
        served=served,
        batch_id=None,
        rows=sum(outcome.request.rows for outcome in outcomes),
        reason=NOT_RUN,
        started_at=now,
        finished_at=now,
        seconds=0.0,
        runs=[],
        outcomes=outcomes,
    )


def postponed(request: InferenceRequest, delay_s: float) -> FinishedBatch:
    """Bundle a request whose time has not come."""
    batch = not_run(None, [])
    batch.deferred = [Deferred(request=request, delay_s=delay_s, is_retry=False)]
    batch.rows = 1
    return batch


def answered(already_stored: list[AlreadyStored]) -> FinishedBatch:
    """Bundle requests that had ended before they were delivered again."""
    batch = not_run(None, [])
    batch.already_stored = already_stored
    batch.rows = len(already_stored)
    return batch


def ended(request: InferenceRequest, state: State, error: HeadraceError) -> Outcome:
    """Make the outcome of a request that has no outputs."""
    return Outcome(request=request, state=state, error=error)
