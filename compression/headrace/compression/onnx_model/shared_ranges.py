"""Whether rows of a product may share a run although its activations take one range over all of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.row_layout import as_taken, rows_first
from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.package.agreement import TOLERANCES
from headrace.contracts.tensors.datatypes import FLOATS
from headrace.runtimes.base import LoadedModel

#: Rows whose answers are compared.
_ROWS: Final = 16

#: What an extreme neighbour's numbers are multiplied by.
_EXTREME: Final = 100.0


def company_changes(package: ModelPackage, before: LoadedModel, after: LoadedModel, batch: Tensors) -> str:
    """Return why rows of a product may not share a run; "" if they may.

    A row's answer may change beside others, one extreme row among them, by no more than quantization itself changed it:
    then company costs no accuracy that the product's bound does not cover. before, after: the models of the package and
    of its product. batch: at least some rows, as the model takes them.
    """
    outputs = package.manifest.signature.outputs
    rows = {name: array[:_ROWS] for name, array in rows_first(package.manifest.inputs, batch).items()}
    extremes = _extremes(package, rows)
    count = len(next(iter(extremes.values())))
    most = (package.manifest.batching.row_sizes or (_ROWS + count,))[-1] - count
    if most < 1:
        return ""  # There is no run with room for another row.
    beside = _answers(package, after, rows, most, extremes)
    source, alone = (_answers(package, model, rows) for model in (before, after))
    for spec in outputs:
        is_float = spec.datatype in FLOATS
        tolerance = TOLERANCES.get(spec.datatype, 0.0) * float(np.abs(_numbers(source[spec.name])).max(initial=0))
        quantized = _change(source[spec.name], alone[spec.name], is_float=is_float)
        changed = _change(alone[spec.name], beside[spec.name], is_float=is_float)
        if not changed <= max(quantized, tolerance):
            much = "more than any number" if np.isnan(changed) else f"{changed:.2g}"
            return f"output {spec.name!r} changes by {much} beside an extreme row, and by {quantized:.2g} for int8"
    return ""


def _extremes(package: ModelPackage, rows: Tensors) -> Tensors:
    """Make a row of extreme numbers, and one of NaN where the model takes any."""
    floats = [spec for spec in package.manifest.inputs if spec.datatype in FLOATS]
    takes_nan = any(spec.allow_nan for spec in floats)
    extremes = {}
    for spec in package.manifest.inputs:
        first = rows[spec.name][:1]
        neighbours = [first * first.dtype.type(_EXTREME) if spec in floats else first]
        if takes_nan:
            neighbours.append(np.full_like(first, np.nan) if spec in floats and spec.allow_nan else first)
        extremes[spec.name] = np.concatenate(neighbours)
    return extremes


def _answers(
    package: ModelPackage, model: LoadedModel, rows: Tensors, most: int = 1, company: Tensors | None = None
) -> Tensors:
    """Run rows, each time beside the same others; return their answers."""
    inputs, outputs = package.manifest.inputs, package.manifest.signature.outputs
    answers = []
    for start in range(0, len(next(iter(rows.values()))), most):
        piece = {name: array[start : start + most] for name, array in rows.items()}
        count = len(next(iter(piece.values())))
        run = {name: np.concatenate([array, company[name]]) for name, array in piece.items()} if company else piece
        found = rows_first(outputs, model.infer(as_taken(inputs, run)))
        answers.append({name: array[:count] for name, array in found.items()})
    return {spec.name: np.concatenate([answer[spec.name] for answer in answers]) for spec in outputs}


def _numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.zeros(0) if array.dtype.kind == "O" else np.nan_to_num(array.astype(np.float64))


def _change(want: NDArray[Any], have: NDArray[Any], *, is_float: bool) -> float:
    """Return the largest difference of floats; of other values, the share that differs."""
    if want.shape != have.shape:
        return float("inf")
    if not is_float:
        return float((want != have).mean())
    return float(np.abs(want.astype(np.float64) - have.astype(np.float64)).max(initial=0))
