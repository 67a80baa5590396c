"""From requests to outputs: pack a batch, run it, check what came back, and find the culprit when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from headrace.contracts import HeadraceError, Signature, SignatureMismatch, State, Tensors, TensorSpec
from headrace.contracts.package.signature import check_symbols
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import LoadedModel, OutOfMemory, TransientFailure
from headrace.workers.execution.causes import BrokenContract, cause_of
from headrace.workers.request import InferenceRequest, Outcome, Run

logger = logging.getLogger(__name__)


class ServedModel:
    """A loaded model and how its requests share a run."""

    def __init__(self, model: LoadedModel, signature: Signature, *, independent_rows: bool = True) -> None:
        """independent_rows: whether a request may be joined with others and cut into pieces; if not, it runs whole."""
        self._model = model
        self._check = OutputCheck(signature, independent_rows=independent_rows)
        self._specs = signature.inputs
        self.input_axes = RowAxes(signature.inputs)
        self.output_axes = RowAxes(signature.outputs)
        self.independent_rows = independent_rows

    def pack(self, requests: Sequence[InferenceRequest]) -> Tensors:
        """Join the inputs of requests along their rows; they must share one bucket."""
        return self.input_axes.join([request.inputs for request in requests])

    def infer(self, inputs: Tensors, *, max_rows: int) -> Tensors:
        """Run inputs of any number of rows, in pieces of at most `max_rows` where rows are independent.

        Returns outputs with exactly the rows of the inputs. Raises whatever the runtime raises, or BrokenContract.
        """
        rows = self.input_axes.count(inputs)
        if rows > max_rows and self.independent_rows:
            return self.output_axes.join([
                self.infer(self.input_axes.cut(inputs, start, start + max_rows), max_rows=max_rows)
                for start in range(0, rows, max_rows)
            ])  # fmt: skip
        outputs = self._model.infer(inputs)
        self._check(outputs, inputs, rows)
        return outputs

    def cause_of(self, exc: Exception, inputs: Tensors) -> HeadraceError:
        """Return the error of a request whose run, alone, failed for good."""
        return cause_of(exc, inputs, self._specs)

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class OutputCheck:
    """Compares what a model returned with its signature, so that no row can move from one request to another.

    Where each request runs alone, no row can; then sizes that the data decide are nobody's mistake, and only names and
    datatypes are compared.
    """

    def __init__(self, signature: Signature, *, independent_rows: bool) -> None:
        """Prepare the comparisons."""
        self._sizes = independent_rows
        self._inputs = signature.inputs
        self._outputs = [(spec, dtype_of(spec.datatype)) for spec in signature.outputs]
        self._has_symbols = independent_rows and any(any(spec.symbols) for spec in signature.outputs)

    def __call__(self, outputs: Tensors, inputs: Tensors, rows: int) -> None:
        """Raise BrokenContract naming the output that doesn't fit."""
        for spec, dtype in self._outputs:
            array = outputs.get(spec.name)
            if array is None:
                raise BrokenContract(f"output {spec.name!r} is missing")
            if self._sizes and not _fits(spec, array.shape, rows):
                raise BrokenContract(
                    f"output {spec.name!r} has the shape {list(array.shape)} for {rows} rows, but model.toml says "
                    f"{spec.describe()}"
                )
            if array.dtype != dtype:
                raise BrokenContract(f"output {spec.name!r} is {array.dtype}, but model.toml says {spec.datatype}")
        if self._has_symbols:
            self._check_symbols(outputs, inputs)

    def _check_symbols(self, outputs: Tensors, inputs: Tensors) -> None:
        given = [spec for spec in self._inputs if spec.name in inputs]
        try:
            check_symbols([*given, *(spec for spec, _ in self._outputs)], {**inputs, **outputs})
        except SignatureMismatch as exc:
            raise BrokenContract(exc.message) from None


def _fits(spec: TensorSpec, shape: tuple[int, ...], rows: int) -> bool:
    return spec.takes(shape) and (spec.per_request or shape[spec.rows_at] == rows)


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

    def __init__(self, model: ServedModel, max_rows: int, padded: Callable[[int], int] = int) -> None:
        """max_rows: the most rows one run of the model may have. padded: the rows that run for a number of rows."""
        self._model = model
        self._max_rows = max_rows
        self._padded = padded
        self._verdict = Verdict([], [], [])

    def run(self, requests: list[InferenceRequest]) -> Verdict:
        """Run a batch; when it fails, halve it until each culprit stands alone.

        A batch of n requests with k culprits costs at most 2·k·log2(n) further runs. Out of memory halves it too, down
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
            outputs = self._model.infer(self._model.pack(requests), max_rows=self._max_rows)
        except (MemoryError, OutOfMemory) as exc:
            self._shrink(requests, exc)
        except TransientFailure as exc:
            verdict.passing += [(request, exc) for request in requests]
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its requests, not to the worker.
            if len(requests) == 1:
                verdict.outcomes.append(self._failure(requests[0], exc))
            else:
                self._halve(requests)
        else:
            verdict.runs.append(Run(requests=requests, outputs=outputs, axes=self._model.output_axes))

    def _halve(self, requests: list[InferenceRequest]) -> None:
        middle = len(requests) // 2
        self._run(requests[:middle])
        self._run(requests[middle:])

    def _shrink(self, requests: list[InferenceRequest], exc: Exception) -> None:
        """Try again with half the rows."""
        rows = min(self._padded(sum(request.rows for request in requests)), self._max_rows)
        if not self._model.independent_rows:
            self._verdict.passing.append((requests[0], exc))
            return
        lowest = self._verdict.out_of_memory_rows
        self._verdict.out_of_memory_rows = rows if lowest is None else min(lowest, rows)
        self._max_rows = max(rows // 2, 1)
        if len(requests) > 1:
            self._halve(requests)
        elif rows > 1:
            self._run(requests)
        else:
            self._verdict.passing.append((requests[0], exc))

    def _failure(self, request: InferenceRequest, exc: Exception) -> Outcome:
        """Log the whole cause under the request's id, and end the request with what a client may see of it."""
        if not isinstance(exc, HeadraceError):
            logger.error("inference failed: request=%s model=%r", request.id, request.lane, exc_info=exc)
        return Outcome(request=request, state=State.FAILED, error=self._model.cause_of(exc, request.inputs))
