"""A sample of real rows that a person gave for a trial."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from headrace.contracts import HeadraceError, PackageError, Tensors
from headrace.contracts.tensors.codec import as_array
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.trial.dimensions import terms_of
from headrace.lifecycle.packages.trial.layouts import Layout
from headrace.lifecycle.packages.trial.samples import Recipe, cut_rows

#: A sample's rows are scaled by these to make extreme batch mates.
_SCALES: Final = (100.0, 0.01, 0.0)

#: Most rows of a sample that are used.
_SAMPLE_ROWS: Final = 12


class GivenRows:
    """The rows of a sample, and its first row made extreme."""

    real = True

    def __init__(self, rows: Sequence[Tensors], shared: Tensors) -> None:
        """shared: the inputs without rows that go with them."""
        self._rows = rows
        self._shared = shared

    def take(self, kinds: Sequence[str], recipe: Recipe, seed: int) -> list[Tensors]:  # noqa: ARG002
        """Return as many rows as kinds, in an order that the seed decides."""
        picks = np.random.default_rng(seed).permutation(max(len(self._rows), len(kinds))) % len(self._rows)
        return [self._rows[pick] for pick in picks[: len(kinds)]]

    def shared(self, recipe: Recipe, seed: int) -> Tensors:  # noqa: ARG002
        """Return the sample's inputs without rows."""
        return self._shared


def rows_of(sample: Mapping[str, Any], layout: Layout) -> list[Tensors]:
    """Return the rows of a sample that are used."""
    return cut_rows(dict(sample), layout.axes, layout.axes)[:_SAMPLE_ROWS]


def sizes_of(sample: Mapping[str, Any], layout: Layout) -> dict[str, int]:
    """Return the sizes of symbols that a sample's shapes tell."""
    sizes: dict[str, int] = {}
    for name in layout.axes:
        axis, shape = layout.axes[name], np.shape(sample.get(name, ()))
        inner = shape if axis is None else shape[:axis] + shape[axis + 1 :]
        for dim, size in zip(layout.row_dims(name), inner, strict=False):
            if isinstance(dim, str) and terms_of(dim) == [(1, dim)]:
                sizes.setdefault(dim, size)
    return sizes


def scaled(row: Tensors) -> list[Tensors]:
    """Return a real row made extreme, if it has floats."""
    kinds = {name: array.dtype.kind in "fV" for name, array in row.items()}
    if not any(kinds.values()):
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        return [
            {name: (array * scale).astype(array.dtype) if kinds[name] else array for name, array in row.items()}
            for scale in _SCALES
        ]


def read_sample(file: Path | None, declared: DeclaredModel) -> Tensors:
    """Read rows from a file, each input as a request would hold it; none without a file. Raises PackageError."""
    if file is None:
        return {}
    kinds = {tensor.name: tensor.datatype for tensor in declared.inputs}
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                document: dict[str, Any] = {name: archive[name] for name in archive.files}
        else:
            document = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        return {name: as_array(value, kinds.get(name, "FP32"), name) for name, value in document.items()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError, HeadraceError) as exc:
        raise PackageError(f"the sample {file} can't be read: {exc}; give an .npz or a JSON object of inputs") from exc


def check_sample(sample: Mapping[str, Any], declared: DeclaredModel) -> None:
    """Refuse a sample that names other inputs than the model has. Raises PackageError."""
    names = [tensor.name for tensor in declared.inputs]
    missing = [tensor.name for tensor in declared.inputs if tensor.name not in sample and not tensor.optional]
    unknown = [name for name in sample if name not in names]
    if missing or unknown:
        raise PackageError(f"the sample holds {', '.join(sample) or 'nothing'}, but the model takes {', '.join(names)}")
