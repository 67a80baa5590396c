"""Models whose file takes certain numbers of rows only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.contracts import ModelPackage, PackageError, Tensors
from headrace.contracts.padding import pad_rows
from headrace.runtimes.base import LoadedModel


class FixedRows:
    """Runs any number of rows on such a model: in pieces of its sizes, the last padded and its padding dropped."""

    def __init__(self, model: LoadedModel, sizes: Sequence[int]) -> None:
        """model: runs exactly these numbers of rows; rising."""
        self._model = model
        self._sizes = sizes

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        rows = len(next(iter(inputs.values()), ()))
        largest = self._sizes[-1]
        if rows <= largest:
            return self._infer_piece(inputs, rows)
        pieces = [
            self._infer_piece(
                {name: array[start : start + largest] for name, array in inputs.items()}, min(largest, rows - start)
            )
            for start in range(0, rows, largest)
        ]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _infer_piece(self, inputs: Tensors, rows: int) -> Tensors:
        size = next(size for size in self._sizes if size >= rows)
        if size == rows:
            return self._model.infer(inputs)
        if any(len(array) != rows for array in inputs.values()):
            raise ValueError("the inputs have different numbers of rows")
        outputs = self._model.infer({name: pad_rows(array, size) for name, array in inputs.items()})
        return {name: array[:rows] for name, array in outputs.items()}


def serve_fixed(package: ModelPackage, model: LoadedModel, sizes: Sequence[int]) -> LoadedModel:
    """Wrap a model that takes only certain numbers of rows; with no sizes it takes any, and stays as it is.

    Raises PackageError when the package's `row_sizes` don't say so, since batches would then be of other sizes.
    """
    if not sizes:
        return model
    advised = package.manifest.batching.row_sizes
    if not advised or not set(advised) <= set(sizes):
        model.close()
        raise PackageError(
            f"{package.file} takes exactly {' or '.join(map(str, sizes))} rows, but model.toml has row_sizes "
            f"{list(advised)}; export it with a dynamic row dimension, or set [batching] row_sizes = {list(sizes)} "
            f"and max_rows = {sizes[-1]}"
        )
    return FixedRows(model, sorted(advised))
