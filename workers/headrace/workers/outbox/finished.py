"""Finished batches of requests that ended, or have to wait, without a model."""

from __future__ import annotations

import logging
import random
import time
from typing import Final

from headrace.contracts import HeadraceError, State
from headrace.workers.execution.backoff import retry_delay_s
from headrace.workers.execution.causes import given_up
from headrace.workers.execution.runner import Verdict
from headrace.workers.models.served_model import Lane
from headrace.workers.request import Deferred, FinishedBatch, InferenceRequest, Known, Outcome

logger = logging.getLogger(__name__)

#: Reason code of what ends without a model: expired, cancelled or of a model that can't be loaded.
NOT_RUN: Final = ""


def not_run(lane: Lane | None, outcomes: list[Outcome]) -> FinishedBatch:
    """Bundle requests that end without a model."""
    now = time.time()
    return FinishedBatch(
        lane=lane,
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


def answered(known: list[Known]) -> FinishedBatch:
    """Bundle requests that had ended before they were delivered again."""
    batch = not_run(None, [])
    batch.known = known
    batch.rows = len(known)
    return batch


def ended(request: InferenceRequest, state: State, error: HeadraceError) -> Outcome:
    """Make the outcome of a request that has no outputs."""
    return Outcome(request=request, state=state, error=error)


def put_off(lane: Lane, verdict: Verdict, max_retries: int) -> list[Deferred]:
    """Let requests whose failure may pass wait in the queue; add those that waited too often to the outcomes."""
    logger.warning("failed for now: %r, %d requests: %s", lane, len(verdict.passing), verdict.passing[0][1])
    deferred = []
    now = time.monotonic()
    for request, exc in verdict.passing:
        if request.retries >= max_retries:
            logger.error("given up after %d retries: request=%s: %s", request.retries, request.id, exc)
            error = given_up(exc, request.retries + 1, request.inputs, lane.signature.inputs)
            verdict.outcomes.append(ended(request, State.FAILED, error))
        else:
            left_s = None if request.deadline is None else request.deadline - now
            delay_s = retry_delay_s(request.retries, random.random(), left_s)  # noqa: S311 — no secret
            deferred.append(Deferred(request=request, delay_s=delay_s))
    return deferred
