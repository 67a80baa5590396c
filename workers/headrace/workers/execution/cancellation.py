"""What was cancelled while it ran: its outputs are thrown away, and those of its neighbours are kept."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from headrace.contracts import Cancelled, State
from headrace.workers.execution.runner import Verdict
from headrace.workers.request import Outcome, Run


def end_cancelled(verdict: Verdict, revoked: Container[str]) -> None:
    """Move requests whose ids were revoked meanwhile from the runs to the outcomes."""
    runs: list[Run] = []
    for run in verdict.runs:
        if not any(request.id in revoked for request in run.requests):
            runs.append(run)
            continue
        for request, piece in zip(run.requests, run.pieces(), strict=True):
            if request.id in revoked:
                verdict.outcomes.append(Outcome(request=request, state=State.CANCELLED, error=Cancelled()))
            else:
                runs.append(msgspec.structs.replace(run, requests=[request], outputs=piece))
    verdict.runs = runs
