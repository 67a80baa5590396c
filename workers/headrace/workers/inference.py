"""From requests to outputs: pack a batch, run it, check what came back, and find the culprit when it fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from headrace.contracts import HeadraceError, InferenceFailed, Signature, State, Tensors
from headrace.contracts.datatypes import dtype_of
from headrace.workers.batching import pad_rows
from headrace.workers.request import InferenceRequest, Outcome, Run
from headrace.workers.runtimes import LoadedModel

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


class Runner:
    """Runs batches on one model and separates the requests that make it fail from those that don't."""

    def __init__(self, model: LoadedModel, signature: Signature, max_rows: int) -> None:
        """max_rows: the most rows one run of the model may have."""
        self._model = model
        self._signature = signature
        self._max_rows = max_rows

    def run(self, requests: list[InferenceRequest], padded_rows: int) -> tuple[list[Run], list[Outcome]]:
        """Run a batch; when it fails, halve it until each culprit stands alone.

        A batch of n requests with k culprits costs at most 2·k·log2(n) further runs.
        """
        try:
            outputs = infer(
                self._model, self._signature, pack(requests), max_rows=self._max_rows, padded_rows=padded_rows
            )
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its requests, not to the worker.
            if len(requests) == 1:
                return [], [_failure(requests[0], exc)]
            middle = len(requests) // 2
            left_runs, left_outcomes = self.run(requests[:middle], 0)
            right_runs, right_outcomes = self.run(requests[middle:], 0)
            return left_runs + right_runs, left_outcomes + right_outcomes
        return [Run(requests=requests, outputs=outputs)], []


def _failure(request: InferenceRequest, exc: Exception) -> Outcome:
    """Log the cause under the request's id; what a client may see is the line of a HeadraceError, or nothing of it."""
    if isinstance(exc, HeadraceError):
        return Outcome(request=request, state=State.FAILED, error=exc)
    logger.error("inference failed: request=%s model=%r", request.id, request.lane, exc_info=exc)
    return Outcome(request=request, state=State.FAILED, error=InferenceFailed())
