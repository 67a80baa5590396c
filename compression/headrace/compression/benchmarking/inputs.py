"""The rows that models are measured with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import ModelPackage, SignatureMismatch, Tensors, TensorSpec, encode_tensors
from headrace.contracts.tensors.rows import RowAxes


def checked_sizes(row_sizes: Sequence[int]) -> list[int]:
    """Sort row sizes and drop repetitions. Raises CompressionError when there is none, or one below 1."""
    sizes = sorted(set(row_sizes))
    if not sizes or sizes[0] < 1:
        raise CompressionError("there is nothing to measure: give row sizes of at least 1")
    return sizes


@contextmanager
def rows_file(packages: Sequence[ModelPackage], inputs: Tensors, most: int) -> Iterator[Path]:
    """Write the first rows into a file for child processes to read; it goes with the block.

    most: as many rows as a batch may have. Raises DataError when the rows don't fit one of the packages.
    """
    for package in packages:
        try:
            inputs = package.manifest.signature.check_inputs(inputs)
        except SignatureMismatch as exc:
            raise DataError(f"the rows to measure {package.name} with don't fit it: {exc.message}") from exc
    with tempfile.TemporaryDirectory(prefix="headrace-measure-") as folder:
        file = Path(folder, "inputs")
        axes = RowAxes(packages[0].manifest.inputs)
        file.write_bytes(encode_tensors(axes.cut(inputs, 0, most)))
        yield file


def tiled(inputs: Tensors, rows: int, specs: Sequence[TensorSpec]) -> Tensors:
    """Repeat rows, in order, until there are as many as asked for; a copy that the model may write to.

    specs: of the inputs; those without rows stay as they are.
    """
    axes = {spec.name: spec.row_axis for spec in specs}
    return {name: _tiled(array, axes[name], rows) for name, array in inputs.items()}


def _tiled(array: NDArray[Any], axis: int | None, rows: int) -> NDArray[Any]:
    if axis is None:
        return array.copy()
    repeated: NDArray[Any] = np.take(array, np.arange(rows) % array.shape[axis], axis=axis)
    return repeated
