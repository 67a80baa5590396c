"""Row independence: a check at run time that a request's outputs don't depend on the requests beside it."""

from __future__ import annotations

import logging
from random import Random
from typing import Final
from weakref import WeakKeyDictionary

from headrace.contracts.package.agreement import difference
from headrace.workers.execution.layers.base import BatchContext, Next, Services
from headrace.workers.execution.runner import Runner
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.checked_model import CheckedModel
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import Run

logger = logging.getLogger(__name__)


class RowIndependence:
    """Checks some batches of each model; requests of a model whose rows depend on each other run alone from then on."""

    def __init__(self, services: Services) -> None:
        """services: `check_every`."""
        self._every = services.check_every
        self._checks: WeakKeyDictionary[ServedModel, RowIndependenceCheck] = WeakKeyDictionary()

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch; what was computed together by a model with dependent rows is computed anew."""
        served = batch.served
        verdict = following(batch)
        if not self._every:
            return verdict
        if served.independent_rows:
            verdict.dependence = self._check_of(served)(served.model, verdict)
            if verdict.dependence:
                logger.error(
                    "rows.dependent model=%r: %s; its requests run alone from now on", served, verdict.dependence
                )
                served.run_alone()
                run_again_alone(served.model, verdict)
        elif served.concurrent:
            # Another batch, in flight at the same time, may have found the dependence.
            run_again_alone(served.model, verdict)
        return verdict

    def _check_of(self, served: ServedModel) -> RowIndependenceCheck:
        check = self._checks.get(served)
        if check is None:
            check = self._checks[served] = RowIndependenceCheck(self._every, Random())  # noqa: S311 — no secret
        return check


class RowIndependenceCheck:
    """Computes a request of one batch in `every` again, alone, and compares.

    A package is proven when it is added, on rows of a trial; real rows may still show what those did not.
    """

    def __init__(self, every: int, random: Random) -> None:
        """every: 0 checks none. random: chooses the request."""
        self._every: Final = every
        self._random = random
        self._batches = 0

    def __call__(self, model: CheckedModel, verdict: Verdict) -> str:
        """Return how a request's outputs differ from those it gets alone; "" if they don't, or it isn't checked."""
        run = self._due(verdict)
        if run is None:
            return ""
        number = self._random.randrange(len(run.requests))
        request = run.requests[number]
        try:
            alone = model.infer(request.inputs, max_rows=request.rows)
        except Exception as exc:  # noqa: BLE001 — it ran beside others, so whatever is wrong alone is no answer to it.
            logger.warning("check.failed request=%s model=%r error=%s", request.id, request.served, type(exc).__name__)
            return ""
        return difference(alone, run.pieces()[number])

    def _due(self, verdict: Verdict) -> Run | None:
        shared = next((run for run in verdict.runs if len(run.requests) > 1), None)
        if not self._every or shared is None:
            return None
        self._batches += 1
        return shared if self._batches % self._every == 0 else None


def run_again_alone(model: CheckedModel, verdict: Verdict) -> None:
    """Compute anew, each request alone, what ran together; `model` shares no runs any more."""
    shared = [request for run in verdict.runs if len(run.requests) > 1 for request in run.requests]
    if not shared:
        return
    again = Runner(model, max_rows=1).run(shared)
    verdict.runs = [run for run in verdict.runs if len(run.requests) == 1] + again.runs
    verdict.outcomes += again.outcomes
    verdict.transient_failures += again.transient_failures
