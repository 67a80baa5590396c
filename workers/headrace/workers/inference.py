"""From requests to outputs: pack a batch, run it, check what came back, and find the culprit when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from headrace.contracts import HeadraceError, InferenceFailed, Signature, State, Tensors
from headrace.contracts.datatypes import dtype_of
from headrace.contracts.padding import pad_rows
from headrace.runtimes.base import LoadedModel, OutOfMemory, TransientFailure
from headrace.workers.request import InferenceRequest, Outcome, Run

logger = logging.getLogger(__name__)


class BrokenContract(Exception):
    """A model returned something else than its package says."""


def pack(requests: Sequence[InferenceRequest]) -> Tensors:
    """Concatenate the inputs of requests along their rows; they must share one bucket."""
    first = requests[0].inputs
    if len(requests) == 1:
        return first
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in first}


def infer(model: LoadedModel, signature: Signature, inputs: Tensors, *, max_rows: int, padded_rows: int) -> Tensors:
    """Run inputs of any number of rows in pieces of at most `max_rows`, padded to `padded_rows` where that is more.

    Returns outputs with exactly the rows of the inputs. Raises whatever the runtime raises, or BrokenContract.
    """
    rows = len(next(iter(inputs.values())))
    if rows > max_rows:
        pieces = [
            infer(
                model,
                signature,
                {name: array[start : start + max_rows] for name, array in inputs.items()},
                max_rows=max_rows,
                padded_rows=0,
            )
            for start in range(0, rows, max_rows)
        ]
        return {spec.name: np.concatenate([piece[spec.name] for piece in pieces]) for spec in signature.outputs}
    padded = max(rows, padded_rows)
    if padded > rows:
        inputs = {name: pad_rows(array, padded) for name, array in inputs.items()}
    outputs = model.infer(inputs)
    _check(signature, outputs, padded)
    return {name: array[:rows] for name, array in outputs.items()} if padded > rows else outputs


def _check(signature: Signature, outputs: Tensors, rows: int) -> None:
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise BrokenContract(f"output {spec.name!r} is missing")
        if array.ndim == 0 or array.shape[0] != rows:
            raise BrokenContract(f"output {spec.name!r} has shape {list(array.shape)} for {rows} rows")
        if array.dtype != dtype_of(spec.datatype):
            raise BrokenContract(f"output {spec.name!r} is {array.dtype}, but model.toml says {spec.datatype}")


class Verdict(msgspec.Struct):
    """What became of the requests of a batch.

    passing: those that failed for a reason that may pass, each with that. out_of_memory_rows: the fewest rows of a run
    that needed more memory than there is; None if none did.
    """

    runs: list[Run]
    outcomes: list[Outcome]
    passing: list[tuple[InferenceRequest, Exception]]
    out_of_memory_rows: int | None = None


class Runner:
    """Runs batches on one model and separates the requests that make it fail from those that don't."""

    def __init__(
        self, model: LoadedModel, signature: Signature, max_rows: int, padded: Callable[[int], int] = int
    ) -> None:
        """max_rows: the most rows one run of the model may have. padded: gives the rows to run for a number of rows."""
        self._model = model
        self._signature = signature
        self._max_rows = max_rows
        self._padded = padded
        self._verdict = Verdict([], [], [])

    def run(self, requests: list[InferenceRequest], padded_rows: int) -> Verdict:
        """Run a batch; when it fails, halve it until each culprit stands alone.

        A batch of n requests with k culprits costs at most 2·k·log2(n) further runs. Out of memory halves it too, down
        to single rows; any other TransientFailure is that of the device, so the whole batch is put off.
        """
        self._verdict = Verdict([], [], [])
        self._run(requests, padded_rows)
        return self._verdict

    def _run(self, requests: list[InferenceRequest], padded_rows: int) -> None:
        verdict = self._verdict
        try:
            outputs = infer(
                self._model, self._signature, pack(requests), max_rows=self._max_rows, padded_rows=padded_rows
            )
        except (MemoryError, OutOfMemory) as exc:
            self._shrink(requests, padded_rows, exc)
        except TransientFailure as exc:
            verdict.passing += [(request, exc) for request in requests]
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its requests, not to the worker.
            if len(requests) == 1:
                verdict.outcomes.append(_failure(requests[0], exc))
            else:
                self._halve(requests)
        else:
            verdict.runs.append(Run(requests=requests, outputs=outputs))

    def _halve(self, requests: list[InferenceRequest]) -> None:
        middle = len(requests) // 2
        for half in (requests[:middle], requests[middle:]):
            self._run(half, self._padded(sum(request.rows for request in half)))

    def _shrink(self, requests: list[InferenceRequest], padded_rows: int, exc: Exception) -> None:
        """Try again with half the rows."""
        rows = min(max(sum(request.rows for request in requests), padded_rows), self._max_rows)
        lowest = self._verdict.out_of_memory_rows
        self._verdict.out_of_memory_rows = rows if lowest is None else min(lowest, rows)
        self._max_rows = max(rows // 2, 1)
        if len(requests) > 1:
            self._halve(requests)
        elif rows > 1:
            self._run(requests, 0)
        else:
            self._verdict.passing.append((requests[0], exc))


def _failure(request: InferenceRequest, exc: Exception) -> Outcome:
    """Log the cause under the request's id; what a client may see is the line of a HeadraceError, or nothing of it."""
    if isinstance(exc, HeadraceError):
        return Outcome(request=request, state=State.FAILED, error=exc)
    logger.error("inference failed: request=%s model=%r", request.id, request.lane, exc_info=exc)
    return Outcome(request=request, state=State.FAILED, error=InferenceFailed())
