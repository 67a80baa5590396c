"""Cancellation: requests cancelled before the run leave the batch, those cancelled during the run end as cancelled."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from headrace.contracts import Cancelled, State
from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.verdict import Verdict
from headrace.workers.request import InferenceRequest, Outcome, Run


class Revoked:
    """Ends cancelled requests; their neighbours keep their outputs."""

    def __init__(self, services: Services) -> None:
        """services: `revoked` and `end`."""
        self._revoked = services.revoked
        self._end = services.end

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run the requests that were not cancelled."""
        if self._revoked:
            batch = self._wanted(batch)
            if not batch.requests:
                return Verdict([], [], [])
        verdict = following(batch)
        if self._revoked:
            end_cancelled(verdict, self._revoked)
        return verdict

    def _wanted(self, batch: BatchContext) -> BatchContext:
        cancelled = [request for request in batch.requests if request.id in self._revoked]
        if not cancelled:
            return batch
        self._end(batch.served, [_cancelled(request) for request in cancelled])
        wanted = [request for request in batch.requests if request.id not in self._revoked]
        return msgspec.structs.replace(batch, requests=wanted, rows=sum([request.rows for request in wanted]))


def end_cancelled(verdict: Verdict, revoked: Container[str]) -> None:
    """Move requests whose ids were revoked meanwhile from the runs to the outcomes."""
    runs: list[Run] = []
    for run in verdict.runs:
        if not any(request.id in revoked for request in run.requests):
            runs.append(run)
            continue
        for request, piece in zip(run.requests, run.pieces(), strict=True):
            if request.id in revoked:
                verdict.outcomes.append(_cancelled(request))
            else:
                runs.append(msgspec.structs.replace(run, requests=[request], outputs=piece))
    verdict.runs = runs


def _cancelled(request: InferenceRequest) -> Outcome:
    return Outcome(request=request, state=State.CANCELLED, error=Cancelled())
