"""Predictions of a package for all rows of a dataset, through the runtime that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.row_layout import as_taken, rows_first
from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import ModelPackage, SignatureMismatch, Tensors
from headrace.contracts.formatting import first_line
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

#: Rows that one run of a model gets: enough to keep cores busy, little enough for the memory of large models.
BATCH_ROWS: Final = 256


def predict(
    package: ModelPackage, dataset: Dataset, *, threads: int, device: str = "cpu", batch_rows: int = BATCH_ROWS
) -> Tensors:
    """Run a package over all rows, in batches, through the runtime that serves it; return all outputs, rows first.

    Those whose rows depend on each other get single rows.
    Raises DataError when the data don't fit the package, PackageError when it can't be loaded, CompressionError when
    it fails on a batch or gives other outputs than its signature says.
    """
    specs = package.manifest.inputs
    try:
        inputs = package.manifest.signature.check_inputs(as_taken(specs, dataset.inputs))
    except SignatureMismatch as exc:
        raise DataError(f"the data don't fit {package.name}: {exc.message}") from exc
    package.verify()
    model = load_model(package, device, threads)
    try:
        batches = list(_batches(package, model, rows_first(specs, inputs), batch_rows))
    finally:
        model.close()
    names = [spec.name for spec in package.manifest.signature.outputs]
    try:
        return {name: np.concatenate([batch[name] for batch in batches]) for name in names}
    except ValueError as exc:
        raise CompressionError(
            f"{package.name} gives outputs of different sizes for different batches: {exc}; pad the rows to one size"
        ) from exc


def _batches(package: ModelPackage, model: LoadedModel, inputs: Tensors, batch_rows: int) -> Iterator[Tensors]:
    step = batch_rows if package.manifest.batching.independent_rows else 1
    for first in range(0, len(next(iter(inputs.values()))), step):
        yield _run(package, model, {name: array[first : first + step] for name, array in inputs.items()}, first)


def _run(package: ModelPackage, model: LoadedModel, batch: Tensors, first: int) -> Tensors:
    rows = len(next(iter(batch.values())))
    try:
        outputs = model.infer(as_taken(package.manifest.inputs, batch))
    except Exception as exc:  # Runtimes raise what their libraries raise.
        raise CompressionError(f"{package.name} fails on {rows} rows from row {first} on: {first_line(exc)}") from exc
    for spec in package.manifest.signature.outputs:
        if spec.name not in outputs:
            raise CompressionError(f"{package.name} gives no output {spec.name!r}, which its signature has")
        if outputs[spec.name].shape[spec.rows_at : spec.rows_at + 1] != (rows,):
            raise CompressionError(
                f"output {spec.name!r} of {package.name} has the shape {list(outputs[spec.name].shape)} for {rows} rows"
            )
    return rows_first(package.manifest.outputs, outputs)
