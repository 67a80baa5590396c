"""The rows that models are measured with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import ModelPackage, SignatureMismatch, Tensors, encode_tensors


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
        file.write_bytes(encode_tensors({name: array[:most] for name, array in inputs.items()}))
        yield file


def parts_of(rows: int, row_sizes: tuple[int, ...]) -> list[int]:
    """Give the row counts of the runs that a worker makes of a batch, for a model that runs fixed sizes only."""
    if not row_sizes:
        return [rows]
    whole, rest = divmod(rows, row_sizes[-1])
    return [row_sizes[-1]] * whole + [size for size in row_sizes if size >= rest][:1] * bool(rest)


def tiled(inputs: Tensors, rows: int) -> Tensors:
    """Repeat rows, in order, until there are as many as asked for; a copy that the model may write to."""
    return {name: array[np.arange(rows) % len(array)] for name, array in inputs.items()}
