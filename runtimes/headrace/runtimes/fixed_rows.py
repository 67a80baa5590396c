"""Models that run fixed numbers of rows only; the one place where rows are padded."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.contracts import PackageError, Signature, Tensors
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import LoadedModel


class FixedRows:
    """Runs any number of rows on such a model: in pieces of its sizes, the last padded and its padding dropped."""

    def __init__(self, model: LoadedModel, signature: Signature, sizes: Sequence[int]) -> None:
        """model: runs exactly these numbers of rows; rising."""
        self._model = model
        self._inputs = RowAxes(signature.inputs)
        self._outputs = RowAxes(signature.outputs)
        self._sizes = sizes

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        rows = self._inputs.count(inputs)
        largest = self._sizes[-1]
        if rows <= largest:
            return self._infer_piece(inputs, rows)
        return self._outputs.join([
            self._infer_piece(self._inputs.cut(inputs, start, start + largest), min(largest, rows - start))
            for start in range(0, rows, largest)
        ])  # fmt: skip

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _infer_piece(self, inputs: Tensors, rows: int) -> Tensors:
        size = next(size for size in self._sizes if size >= rows)
        if size == rows:
            return self._model.infer(inputs)
        return self._outputs.cut(self._model.infer(self._inputs.pad(inputs, size)), 0, rows)


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
