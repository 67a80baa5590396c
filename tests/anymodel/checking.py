"""The property itself: what callers get of a served model is what bare ONNX Runtime gives to each of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.anymodel import callers
from tests.anymodel.bare import Bare, differences
from tests.anymodel.callers import Case
from tests.anymodel.serving import Answer, serve, served_model_of

from headrace.contracts import HeadraceError, ModelDirectory, ModelPackage, Tensors
from headrace.lifecycle.packages.registry import add_model
from headrace.workers.models.served_model import ServedModel


def add(model: bytes, folder: Path, **options: Any) -> ModelPackage:
    """Add a model file to a model directory of its own."""
    file = folder / "model.onnx"
    file.write_bytes(model)
    return add_model(file, ModelDirectory(folder / "models"), **options)


def added(case: Case, folder: Path, **options: Any) -> ModelPackage:
    """Add a generated model, with what only a user can know of it."""
    if case.rows_at:
        options["rows_at"] = case.rows_at
    return add(case.model, folder, **options)


def faults(package: ModelPackage, case: Case, rng: np.random.Generator, rounds: int) -> list[str]:
    """Return in what the answers of several rounds of callers are wrong."""
    alone = Bare(case.model)
    found = []
    with served_model_of(package) as served:
        for _ in range(rounds):
            sent = callers.requests(case, rng, int(rng.integers(2, 9)))
            found += compared(alone, sent, serve(served, sent, rng))
        found += other_rows_at_fixed(served, alone, case, rng)
    return found


def compared(alone: Bare, sent: Sequence[Tensors], got: Sequence[Answer]) -> list[str]:
    """Return in what answers differ from those of bare ONNX Runtime to each request alone.

    A request that ONNX Runtime refuses must be refused, and no other.
    """
    return list(
        filter(None, (_compared_one(alone, request, answer) for request, answer in zip(sent, got, strict=True)))
    )


def _compared_one(alone: Bare, request: Tensors, answer: Answer) -> str:
    shapes = {name: list(array.shape) for name, array in request.items()}
    try:
        expected = alone.answer(request)
    except Exception as exc:  # noqa: BLE001 — ONNX Runtime raises types of its own.
        return "" if isinstance(answer, HeadraceError) else f"{shapes} was answered, but alone it fails: {exc}"
    if isinstance(answer, HeadraceError):
        return f"{shapes} was refused, but runs alone: {answer.message}"
    problem = differences(expected, answer)
    return f"{shapes}: {problem}" if problem else ""


def other_rows_at_fixed(served: ServedModel, alone: Bare, case: Case, rng: np.random.Generator) -> list[str]:
    """Return faults of requests with other rows than a fixed batch has, where a package takes them."""
    rows = case.rows
    if isinstance(rows, str) or not served.independent_rows or not served.package.manifest.batching.row_sizes:
        return []
    axes = {spec.name: spec.row_axis for spec in (*served.signature.inputs, *served.signature.outputs)}
    if any(
        axes[each.name] != each.dims.index(rows) for each in case.inputs if not each.parameter and rows in each.dims
    ):
        return []
    sent = callers.request(case, rng, temper="ordinary")
    short = _taken(sent, axes, list(range(max(rows - 1, 1))))
    long = _taken(sent, axes, [*range(rows), 0])
    expected = alone.answer(sent)
    results = serve(served, [short, long], rng)
    found = []
    for picked, result in zip((list(range(max(rows - 1, 1))), [*range(rows), 0]), results, strict=True):
        wanted = _taken(expected, axes, picked)
        problem = result.message if isinstance(result, HeadraceError) else differences(wanted, result)
        if problem:
            found.append(f"{len(picked)} rows at a fixed batch of {rows}: {problem}")
    return found


def _taken(tensors: dict[str, Any], axes: dict[str, int | None], rows: list[int]) -> dict[str, Any]:
    return {
        name: array if axes[name] is None else np.take(array, rows, axis=axes[name]) for name, array in tensors.items()
    }
