"""The runner: packs a batch, runs it, and isolates the requests that make it fail."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from headrace.contracts import HeadraceError, PackageError, State
from headrace.runtimes.base import OutOfMemory, TransientFailure
from headrace.runtimes.remote.base import BatchTooLarge
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.checked_model import CheckedModel
from headrace.workers.request import InferenceRequest, Outcome, Run

logger = logging.getLogger(__name__)


def latest_deadline(requests: Iterable[InferenceRequest]) -> float | None:
    """Return when the last of these requests expires; None if one of them never does."""
    latest = -math.inf
    for request in requests:
        if request.deadline is None:
            return None
        latest = max(latest, request.deadline)
    return latest


class Runner:
    """Runs batches on one model and separates the requests that make it fail from those that don't."""

    def __init__(self, model: CheckedModel, max_rows: int, padded: Callable[[int], int] = int) -> None:
        """max_rows: the most rows one run of the model may have. padded: the rows that run for a number of rows."""
        self._model = model
        self._max_rows = max_rows
        self._padded = padded
        self._verdict = Verdict([], [], [])

    def run(self, requests: list[InferenceRequest]) -> Verdict:
        """Run a batch; when it fails, halve it until each offender stands alone.

        A batch of n requests with k offenders costs at most 2·k·log2(n) further runs. Out of memory halves it too, down
        to single rows; any other TransientFailure is that of the device, so the whole batch is put off.
        """
        self._verdict = Verdict([], [], [])
        if self._model.independent_rows:
            self._run(requests)
        else:
            for request in requests:
                self._run([request])
        return self._verdict

    def _run(self, requests: list[InferenceRequest]) -> None:
        verdict = self._verdict
        try:
            inputs, deadline = self._model.pack(requests), latest_deadline(requests)
            computed = self._model.compute(inputs, max_rows=self._max_rows, deadline=deadline)
        except (MemoryError, OutOfMemory) as exc:
            self._shrink(requests, exc)
        except TransientFailure as exc:
            verdict.transient_failures += [(request, exc) for request in requests]
        except BatchTooLarge as exc:
            self._cut(requests, exc)
        except PackageError as exc:
            # The model isn't the package's any more, which is no request's fault.
            verdict.outcomes += [self._failure(request, exc) for request in requests]
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its requests, not to the worker.
            if len(requests) == 1:
                verdict.outcomes.append(self._failure(requests[0], exc))
            else:
                self._halve(requests)
        else:
            outputs, version = computed
            axes = self._model.output_axes
            verdict.runs.append(Run(requests=requests, outputs=outputs, axes=axes, served_version=version))

    def _halve(self, requests: list[InferenceRequest]) -> None:
        middle = len(requests) // 2
        self._run(requests[:middle])
        self._run(requests[middle:])

    def _shrink(self, requests: list[InferenceRequest], exc: Exception) -> None:
        """Try again with half the rows."""
        rows = min(self._padded(sum(request.rows for request in requests)), self._max_rows)
        if not self._model.independent_rows:
            self._verdict.transient_failures.append((requests[0], exc))
            return
        lowest = self._verdict.out_of_memory_rows
        self._verdict.out_of_memory_rows = rows if lowest is None else min(lowest, rows)
        self._max_rows = max(rows // 2, 1)
        if len(requests) > 1:
            self._halve(requests)
        elif rows > 1:
            self._run(requests)
        else:
            self._verdict.transient_failures.append((requests[0], exc))

    def _cut(self, requests: list[InferenceRequest], exc: BatchTooLarge) -> None:
        """Run again in smaller pieces what the model's server does not take as a whole."""
        rows = min(self._padded(sum(request.rows for request in requests)), self._max_rows)
        said = 0 < exc.most_rows < rows
        most = exc.most_rows if said else rows // 2
        if not self._model.independent_rows or most < 1:
            self._verdict.outcomes += [self._failure(request, exc) for request in requests]
            return
        verdict = self._verdict
        if said:
            verdict.most_rows = min(most, verdict.most_rows or most)
        else:
            verdict.out_of_memory_rows = min(rows, verdict.out_of_memory_rows or rows)
        self._max_rows = most
        if self._padded(most) > most:
            # Nothing smaller is allowed to run.
            verdict.outcomes += [self._failure(request, exc) for request in requests]
        else:
            self._run(requests)

    def _failure(self, request: InferenceRequest, exc: Exception) -> Outcome:
        """Log the whole cause under the request's id, and end the request with what a client may see of it."""
        if not isinstance(exc, HeadraceError):
            logger.error("inference failed: request=%s model=%r", request.id, request.served, exc_info=exc)
        return Outcome(request=request, state=State.FAILED, error=self._model.cause_of(exc, request.inputs))
