"""Backoff: requests whose failure may pass wait in the queue and are tried again, with growing delays."""

from __future__ import annotations

import logging
import random
import time

from headrace.contracts import State
from headrace.workers.execution.backoff import retry_delay_s
from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.failures import given_up
from headrace.workers.request import Deferred, ModelRef, Outcome

logger = logging.getLogger(__name__)


class Backoff:
    """Defers transient failures; a request that was tried too often fails."""

    def __init__(self, services: Services) -> None:
        """services: `max_retries`."""
        self._max_retries = services.max_retries

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch."""
        verdict = following(batch)
        if verdict.transient_failures:
            defer(batch.served, verdict, self._max_retries)
        return verdict


def defer(served: ModelRef, verdict: Verdict, max_retries: int) -> None:
    """Move transient failures to the deferred requests, or to the outcomes where there were too many retries."""
    failures, verdict.transient_failures = verdict.transient_failures, []
    logger.warning("failed for now: %r, %d requests: %s", served, len(failures), failures[0][1])
    deferred = []
    now = time.monotonic()
    for request, exc in failures:
        if request.retries >= max_retries:
            logger.error("given up after %d retries: request=%s: %s", request.retries, request.id, exc)
            error = given_up(exc, request.retries + 1, request.inputs, served.signature.inputs)
            verdict.outcomes.append(Outcome(request=request, state=State.FAILED, error=error))
        else:
            left_s = None if request.deadline is None else request.deadline - now
            delay_s = retry_delay_s(request.retries, random.random(), left_s)  # noqa: S311 — no secret
            deferred.append(Deferred(request=request, delay_s=delay_s))
    verdict.deferred = deferred
