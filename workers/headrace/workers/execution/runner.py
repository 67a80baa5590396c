"""The runner: packs a batch, runs it, and isolates the requests that make it fail."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from headrace.contracts import HeadraceError, PackageError, State, Tensors
from headrace.runtimes.base import Computed, OutOfMemory, TransientFailure, joined
from headrace.runtimes.remote.base import BatchTooLarge, Refused, ServerFailed
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
        What a model server refuses may be too large, in words that nobody knows: of a batch, both halves succeed then;
        a request of several rows runs in pieces, see `_in_pieces`. Later batches are smaller then.
        """
        self._verdict = Verdict([], [], [])
        if self._model.independent_rows:
            self._run(requests)
        else:
            for request in requests:
                self._run([request])
        return self._verdict

    def _run(self, requests: list[InferenceRequest]) -> None:
        try:
            inputs, deadline = self._model.pack(requests), latest_deadline(requests)
            computed = self._model.compute(inputs, max_rows=self._max_rows, deadline=deadline)
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its requests, not to the worker.
            self._failed(requests, exc)
        else:
            self._succeeded(requests, computed)

    def _succeeded(self, requests: list[InferenceRequest], computed: Computed) -> None:
        outputs, version = computed
        axes = self._model.output_axes
        self._verdict.runs.append(Run(requests=requests, outputs=outputs, axes=axes, served_version=version))

    def _failed(self, requests: list[InferenceRequest], exc: Exception) -> None:
        match exc:
            case MemoryError() | OutOfMemory():
                self._shrink(requests, exc)
            case TransientFailure():
                self._verdict.transient_failures += [(request, exc) for request in requests]
            case BatchTooLarge():
                self._cut(requests, exc)
            case PackageError():
                # The model isn't the package's any more, which is no request's fault.
                self._verdict.outcomes += [self._failure(request, exc) for request in requests]
            case Refused() if not isinstance(exc, ServerFailed):
                self._refused(requests, exc)
            case _ if len(requests) > 1:
                self._halve(requests)
            case _:
                self._verdict.outcomes.append(self._failure(requests[0], exc))

    def _refused(self, requests: list[InferenceRequest], exc: Refused) -> None:
        if len(requests) > 1:
            self._halve_refused(requests)
        elif requests[0].rows > 1 and self._model.independent_rows:
            self._run_in_pieces(requests[0], exc)
        else:
            self._verdict.outcomes.append(self._failure(requests[0], exc))

    def _halve_refused(self, requests: list[InferenceRequest]) -> None:
        """Run both halves; when every request succeeds, the whole was too large."""
        rows = self._padded(sum(request.rows for request in requests))
        verdict = self._verdict
        before, most = len(verdict.outcomes) + len(verdict.transient_failures), self._max_rows
        self._halve(requests)
        after = len(verdict.outcomes) + len(verdict.transient_failures)
        middle = len(requests) // 2
        halves = (requests[:middle], requests[middle:])
        largest = max(self._padded(sum(request.rows for request in half)) for half in halves)
        # Of a batch that ran in pieces, the halves may have run in pieces of the same size.
        if before == after and largest < rows <= most:
            self._learn_too_large(rows)

    def _run_in_pieces(self, request: InferenceRequest, exc: Refused) -> None:
        inputs = self._model.pack([request])
        try:
            computed, refused = self._in_pieces(inputs, request, exc)
        except Refused as exc_of_piece:
            self._verdict.outcomes.append(self._failure(request, exc_of_piece))
        except Exception as other:  # noqa: BLE001 — as in `_run`
            self._failed([request], other)
        else:
            self._learn_too_large(refused)
            self._succeeded([request], computed)

    def _in_pieces(self, inputs: Tensors, request: InferenceRequest, exc: Refused) -> tuple[Computed, int]:
        """Return what a refused request gives in smaller pieces, and the fewest rows that were refused.

        Each refused piece is halved, and what follows runs in pieces of that size. Raises Refused where a single row
        is refused, or nothing smaller may run. A bad row among r is found by 2·log2(r) further runs at most, besides
        one run for each `max_rows / 2` rows in front of it.
        """
        axes, start, pieces = self._model.input_axes, 0, []
        refused = min(request.rows, self._max_rows)
        while start < request.rows:
            size = refused // 2
            if size < 1 or self._padded(size) > size:
                raise exc
            try:
                piece = axes.cut(inputs, start, start + size)
                pieces.append(self._model.compute(piece, max_rows=size, deadline=request.deadline))
            except Refused as refusal:
                refused, exc = min(size, request.rows - start), refusal
            else:
                start += size
        return joined(self._model.output_axes, pieces), refused

    def _learn_too_large(self, rows: int) -> None:
        lowest = self._verdict.too_many_rows
        self._verdict.too_many_rows = rows if lowest is None else min(lowest, rows)
        self._max_rows = min(self._max_rows, max(rows // 2, 1))

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
        self._learn_too_large(rows)
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
            verdict.too_many_rows = min(rows, verdict.too_many_rows or rows)
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
