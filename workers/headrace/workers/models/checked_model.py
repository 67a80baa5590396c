"""A loaded model behind the checks that keep each request's rows its own."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.contracts import HeadraceError, Signature, SignatureMismatch, Tensors, TensorSpec
from headrace.contracts.package.signature import check_symbols
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import Computed, LoadedModel, compute_of, joined
from headrace.workers.models.failures import BrokenContract, cause_of
from headrace.workers.request import InferenceRequest


class CheckedModel:
    """A loaded model and how its requests share a run."""

    def __init__(self, model: LoadedModel, signature: Signature, *, independent_rows: bool = True) -> None:
        """independent_rows: whether a request may be joined with others and cut into pieces; if not, it runs whole."""
        self._model = model
        self._compute = compute_of(model)
        self._check = OutputCheck(signature, independent_rows=independent_rows)
        self._specs = signature.inputs
        self.input_axes = RowAxes(signature.inputs)
        self.output_axes = RowAxes(signature.outputs)
        self.independent_rows = independent_rows

    def pack(self, requests: Sequence[InferenceRequest]) -> Tensors:
        """Join the inputs of requests along their rows; they must share one bucket."""
        return self.input_axes.join([request.inputs for request in requests])

    def infer(self, inputs: Tensors, *, max_rows: int) -> Tensors:
        """Run inputs as `compute` does, without a deadline, and return the outputs."""
        return self.compute(inputs, max_rows=max_rows).outputs

    def compute(self, inputs: Tensors, *, max_rows: int, deadline: float | None = None) -> Computed:
        """Run inputs of any number of rows, in pieces of at most `max_rows` where rows are independent.

        deadline: monotonic seconds after which nobody waits. Returns outputs with exactly the rows of the inputs.
        Raises whatever the runtime raises, or BrokenContract.
        """
        rows = self.input_axes.count(inputs)
        if rows > max_rows and self.independent_rows:
            pieces = [
                self.compute(self.input_axes.cut(inputs, start, start + max_rows), max_rows=max_rows, deadline=deadline)
                for start in range(0, rows, max_rows)
            ]
            return joined(self.output_axes, pieces)
        computed = self._compute(inputs, deadline)
        self._check(computed.outputs, inputs, rows)
        return computed

    def cause_of(self, exc: Exception, inputs: Tensors) -> HeadraceError:
        """Return the error of a request whose run, alone, failed for good."""
        return cause_of(exc, inputs, self._specs)

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class OutputCheck:
    """Compares the outputs of a model with its signature, so that no row can move from one request to another.

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
