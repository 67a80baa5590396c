"""Models that run fixed numbers of rows only; the one place where rows are padded."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.contracts import PackageError, Signature, Tensors
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import Computed, LoadedModel, joined
from headrace.runtimes.wrapped import WrappedModel


class FixedRows(WrappedModel):
    """Runs any number of rows on such a model: in pieces of its sizes, the last padded and its padding dropped."""

    def __init__(self, model: LoadedModel, signature: Signature, sizes: Sequence[int]) -> None:
        """model: runs exactly these numbers of rows; rising."""
        super().__init__(model)
        self._inputs = RowAxes(signature.inputs)
        self._outputs = RowAxes(signature.outputs)
        self._sizes = sizes

    def compute(self, inputs: Tensors, deadline: float | None) -> Computed:
        """Run one batch."""
        rows = self._inputs.count(inputs)
        largest = self._sizes[-1]
        if rows <= largest:
            return self._compute_piece(inputs, rows, deadline)
        pieces = [
            self._compute_piece(self._inputs.cut(inputs, start, start + largest), min(largest, rows - start), deadline)
            for start in range(0, rows, largest)
        ]
        return joined(self._outputs, pieces)

    def _compute_piece(self, inputs: Tensors, rows: int, deadline: float | None) -> Computed:
        size = next(size for size in self._sizes if size >= rows)
        if size == rows:
            return self._compute(inputs, deadline)
        outputs, version = self._compute(self._inputs.pad(inputs, size), deadline)
        return Computed(self._outputs.cut(outputs, 0, rows), version)


def check_row_sizes(package: ModelPackage, sizes: Sequence[int]) -> None:
    """Raise PackageError when a model takes only certain numbers of rows and the package would run others.

    sizes: those that the file takes; none of them means any.
    """
    advised = package.manifest.batching.row_sizes
    if sizes and (not advised or not set(advised) <= set(sizes)):
        raise PackageError(
            f"{package.file} takes exactly {' or '.join(map(str, sizes))} rows, but model.toml has row_sizes "
            f"{list(advised)}; set [batching] row_sizes = {list(sizes)} and max_rows = {sizes[-1]}, or add the file "
            "again with `headrace models add`"
        )
