"""The check at run time that a request's outputs don't depend on the requests beside it."""

from __future__ import annotations

import logging
from random import Random
from typing import Final

from headrace.contracts.package.agreement import difference
from headrace.workers.execution.runner import Runner, ServedModel, Verdict
from headrace.workers.request import Run

logger = logging.getLogger(__name__)


class NeighbourCheck:
    """Computes a request of one batch in `every` again, alone, and compares.

    A package is proven when it is added, on rows of a trial; real rows may still show what those did not.
    """

    def __init__(self, every: int, random: Random) -> None:
        """every: 0 checks none. random: chooses the request."""
        self._every: Final = every
        self._random = random
        self._batches = 0

    def __call__(self, model: ServedModel, verdict: Verdict) -> str:
        """Return how a request's outputs differ from those it gets alone; "" if they don't, or it isn't checked."""
        run = self._due(verdict)
        if run is None:
            return ""
        number = self._random.randrange(len(run.requests))
        request = run.requests[number]
        try:
            alone = model.infer(request.inputs, max_rows=request.rows)
        except Exception as exc:  # noqa: BLE001 — it ran beside others, so whatever is wrong alone is no answer to it.
            logger.warning("check.failed request=%s model=%r error=%s", request.id, request.lane, type(exc).__name__)
            return ""
        return difference(alone, run.pieces()[number])

    def _due(self, verdict: Verdict) -> Run | None:
        shared = next((run for run in verdict.runs if len(run.requests) > 1), None)
        if not self._every or shared is None:
            return None
        self._batches += 1
        return shared if self._batches % self._every == 0 else None


def run_again_alone(model: ServedModel, verdict: Verdict) -> None:
    """Compute anew, each request alone, what ran in company; `model` shares no runs any more."""
    shared = [request for run in verdict.runs if len(run.requests) > 1 for request in run.requests]
    again = Runner(model, max_rows=1).run(shared)
    verdict.runs = [run for run in verdict.runs if len(run.requests) == 1] + again.runs
    verdict.outcomes += again.outcomes
    verdict.passing += again.passing
