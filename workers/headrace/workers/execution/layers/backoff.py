"""Backoff: requests whose failure may pass wait in the queue and are tried again, with growing delays."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence
from typing import Final

from headrace.contracts import DeadlineExceeded, State
from headrace.runtimes.base import Unavailable
from headrace.workers.execution.backoff import retry_delay_s
from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.failures import given_up
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import Deferred, InferenceRequest, Outcome

logger = logging.getLogger(__name__)

#: While the server of a model is away, some of its requests are claimed so often, since their deadline may have passed.
LOOK_S: Final = 1.0

#: What is put off waits for this time at least, and for up to this share longer, so that not all comes back at once;
#: for no longer than MOST_WAIT_S, unless the server asks for it.
LEAST_WAIT_S: Final = 0.05
MOST_WAIT_S: Final = 30.0
SPREAD: Final = 0.2


class Backoff:
    """Defers transient failures; a request that was tried too often fails."""

    def __init__(self, services: Services) -> None:
        """services: `max_retries`."""
        self._max_retries = services.max_retries

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch."""
        verdict = following(batch)
        if verdict.runs and batch.served.is_away:
            batch.served.came_back()
        if verdict.transient_failures:
            defer(batch.served, verdict, self._max_retries)
        return verdict


def defer(served: ServedModel, verdict: Verdict, max_retries: int) -> None:
    """Move transient failures to the deferred requests, or to the outcomes where there were too many retries.

    Where what runs the model is away or busy, requests wait without a bound but their deadline.
    """
    failures, verdict.transient_failures = verdict.transient_failures, []
    waiting = [(request, exc) for request, exc in failures if isinstance(exc, Unavailable)]
    if waiting:
        _put_off(served, verdict, waiting)
        failures = [(request, exc) for request, exc in failures if not isinstance(exc, Unavailable)]
    if failures:
        _retry(served, verdict, failures, max_retries)


def _put_off(served: ServedModel, verdict: Verdict, waiting: Sequence[tuple[InferenceRequest, Unavailable]]) -> None:
    now = time.monotonic()
    longest_s = max(LEAST_WAIT_S, *(exc.retry_after_s for _, exc in waiting))
    away_s = served.put_off(now, min(longest_s, LOOK_S))
    # As long as the server has been away: what is looked at must not come back before all others were.
    least_s = min(max(away_s, LEAST_WAIT_S), MOST_WAIT_S)
    logger.info("put off: %r, %d requests: %s", served, len(waiting), waiting[0][1])
    for request, exc in waiting:
        left_s = math.inf if request.deadline is None else request.deadline - now
        if left_s <= 0:
            verdict.outcomes.append(Outcome(request=request, state=State.EXPIRED, error=DeadlineExceeded()))
            continue
        wait_s = max(exc.retry_after_s, least_s) * (1 + SPREAD * random.random())  # noqa: S311 — no secret
        verdict.deferred.append(Deferred(request=request, delay_s=min(wait_s, left_s), is_retry=False))


def _retry(
    served: ServedModel, verdict: Verdict, failures: Sequence[tuple[InferenceRequest, Exception]], max_retries: int
) -> None:
    logger.warning("failed for now: %r, %d requests: %s", served, len(failures), failures[0][1])
    now = time.monotonic()
    for request, exc in failures:
        if request.retries >= max_retries:
            logger.error("given up after %d retries: request=%s: %s", request.retries, request.id, exc)
            error = given_up(exc, request.retries + 1, request.inputs, served.signature.inputs)
            verdict.outcomes.append(Outcome(request=request, state=State.FAILED, error=error))
        else:
            left_s = None if request.deadline is None else request.deadline - now
            delay_s = retry_delay_s(request.retries, random.random(), left_s)  # noqa: S311 — no secret
            verdict.deferred.append(Deferred(request=request, delay_s=delay_s))
