"""Rows of random numbers, for models of which no real ones are at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.contracts import Tensors, TensorSpec
from headrace.contracts.tensors.datatypes import FLOATS, dtype_of


def random_rows(specs: Sequence[TensorSpec], rows: int, size: int) -> Tensors:
    """Make a batch that most models can run: normal numbers; zeros and ones for indices; short strings.

    size: of dimensions that vary and of which no size is known to run. Optional inputs are left out.
    """
    random = np.random.default_rng(rows)
    known = known_sizes(specs)
    batch: Tensors = {}
    for spec in specs:
        if spec.optional:
            continue
        shape = shape_of(spec, rows, known, size)
        if spec.datatype == "BYTES":
            batch[spec.name] = np.full(shape, b"a", dtype=object)
        elif spec.datatype in FLOATS:
            batch[spec.name] = random.standard_normal(shape).astype(dtype_of(spec.datatype))
        else:
            batch[spec.name] = random.integers(0, 2, shape).astype(dtype_of(spec.datatype))
    return batch


def known_sizes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Return the sizes that varying dimensions are known to run with, by their names (see `dimension_names`)."""
    sizes: dict[str, int] = {}
    for spec in specs:
        for name, want, known in zip(dimension_names(spec), spec.shape, spec.sample_shape, strict=False):
            if want == -1:
                sizes.setdefault(name, known)
    return sizes


def dimension_names(spec: TensorSpec) -> list[str]:
    """Name the dimensions of `shape`: by their symbols or, without, by the tensor and the dimension's number in it."""
    symbols = spec.symbols or ("",) * len(spec.shape)
    shift = [at if spec.per_request or at < spec.rows_at else at + 1 for at in range(len(spec.shape))]
    return [symbol or f"{spec.name}[{at}]" for symbol, at in zip(symbols, shift, strict=True)]


def shape_of(spec: TensorSpec, rows: int, known: dict[str, int], size: int) -> tuple[int, ...]:
    """Return the whole shape of an input. known: as of `known_sizes`; size: of other dimensions that vary."""
    sizes = [
        known.get(name, size) if want == -1 else want
        for name, want in zip(dimension_names(spec), spec.shape, strict=True)
    ]
    return tuple(sizes) if spec.per_request else (*sizes[: spec.rows_at], rows, *sizes[spec.rows_at :])


def sizes_in(specs: Sequence[TensorSpec], inputs: Tensors) -> dict[str, int]:
    """Return the sizes that varying dimensions have in some inputs, by their names."""
    sizes: dict[str, int] = {}
    for spec in specs:
        if spec.name not in inputs:
            continue
        whole = inputs[spec.name].shape
        shape = whole if spec.per_request else whole[: spec.rows_at] + whole[spec.rows_at + 1 :]
        for name, want, have in zip(dimension_names(spec), spec.shape, shape, strict=True):
            if want == -1:
                sizes.setdefault(name, int(have))
    return sizes
