"""The review of a model: its cost on this machine against lighter architectures for the same task."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import msgspec
import numpy as np

from headrace.compression.benchmarking.compare import Measurement, MeasureOptions, measure
from headrace.compression.benchmarking.conditions import Conditions
from headrace.compression.benchmarking.ratio import Ratio
from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.architectures import FAMILIES, ImageTask, build
from headrace.compression.networks.flops import count_onnx, multiply_adds, parameters_of
from headrace.compression.networks.loading import need_torch
from headrace.compression.steps import Progress, StepContext, no_progress
from headrace.contracts import ModelPackage, Tensors

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

#: Rows to trace with, and to make up where there are none: a network takes the same time for all images.
_EXAMPLE_ROWS: Final = 8


class ReviewOptions(TypedDict, total=False):
    """Options of a review.

    families: of `architectures.FAMILIES` (all). threads: for each model (1). seconds: to measure each row size with
    (1). seed: of the random weights (0). progress: told after each family.
    """

    families: Sequence[str]
    threads: int
    seconds: float
    seed: int
    progress: Progress


class Reviewed(msgspec.Struct, frozen=True):
    """The model under review, or a family at its task.

    parameters, multiply_adds: of one row, a multiplication and its addition count as one; None where they are not
    known. file_bytes: of the ONNX file for a family. peak_bytes: of memory while it ran. seconds: by the rows of a
    batch. times_faster: than the model under review, in the same way; empty for that model itself.
    """

    name: str
    parameters: int | None
    multiply_adds: int | None
    file_bytes: int
    peak_bytes: int
    seconds: dict[int, float]
    times_faster: dict[int, Ratio] = {}


class Review(msgspec.Struct, frozen=True):
    """A model and lighter families at its task, the model itself first.

    image: channels, height, width. problems: the families that could not be measured, and why.
    """

    model: str
    version: str
    runtime: str
    image: tuple[int, int, int]
    classes: int
    row_sizes: tuple[int, ...]
    models: tuple[Reviewed, ...]
    problems: dict[str, str]
    conditions: Conditions

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the heads of the columns, and a row of text for each model."""
        heads = ("model", "parameters", "multiply-adds", "size", *(f"{rows} rows" for rows in self.row_sizes))
        return heads, [_row(each, self.row_sizes) for each in self.models]


def review(
    package: ModelPackage,
    network: Network | None = None,
    *,
    inputs: Tensors | None = None,
    row_sizes: Sequence[int] = (1, 8, 64),
    **options: Unpack[ReviewOptions],
) -> Review:
    """Compare an image classifier with the families.

    network: that the package was made of, if it is known: its parameters and multiply-adds are then counted in torch,
    else in the ONNX file. inputs: real rows; made up if None.
    The families have random weights: this tells what they would cost, not how good they would be.
    Raises NotApplicable when the model is no image classifier, MissingLibrary without torch.
    """
    need_torch("the review of architectures")
    task = task_of(package)
    rows = inputs if inputs is not None else _random_images(package, task)
    families = options.get("families", tuple(FAMILIES))
    options.get("progress", no_progress)(0, len(families) + 1, package.name)
    alone = measure(package, inputs=rows, row_sizes=row_sizes, **_measuring(options))
    comparison = _Comparison(package, task, rows, tuple(row_sizes))
    compared, problems = comparison.with_families(families, options)
    return Review(
        model=package.name,
        version=package.version,
        runtime=package.manifest.runtime,
        image=(task.channels, task.height, task.width),
        classes=task.classes,
        row_sizes=tuple(row_sizes),
        models=(_reviewed(package.name, alone, _count(package, network)), *compared),
        problems=problems,
        conditions=alone.conditions,
    )


def task_of(package: ModelPackage) -> ImageTask:
    """Read the task off a signature: one FP32 image of fixed size in, scores of classes out. Raises NotApplicable."""
    inputs, outputs = package.manifest.inputs, package.manifest.outputs
    shape = inputs[0].shape
    if len(inputs) != 1 or inputs[0].datatype != "FP32" or len(shape) != 3 or min(shape) < 1:
        raise NotApplicable(
            f"model {package.name!r} does not take one FP32 image [channels, height, width] of fixed size; only image "
            "classifiers are compared with other architectures"
        )
    scores = [spec.shape[0] for spec in outputs if spec.datatype.startswith("FP") and len(spec.shape) == 1]
    named = [size for size in scores if size == len(package.manifest.labels)]
    classes = (named or [size for size in scores if size > 1] or [0])[0]
    if classes < 2:
        raise NotApplicable(f"model {package.name!r} gives no scores [classes]; only image classifiers are compared")
    return ImageTask(shape[0], shape[1], shape[2], classes)


class _Comparison:
    """A model, its task, and rows to measure with."""

    def __init__(self, package: ModelPackage, task: ImageTask, rows: Tensors, row_sizes: tuple[int, ...]) -> None:
        self._package = package
        self._task = task
        self._rows = rows
        self._row_sizes = row_sizes

    def with_families(self, families: Sequence[str], options: ReviewOptions) -> tuple[list[Reviewed], dict[str, str]]:
        """Measure families; return those that could be measured, and why the others couldn't, by name."""
        progress = options.get("progress", no_progress)
        models, problems = [], {}
        for done, family in enumerate(families, 1):
            progress(done, len(families) + 1, family)
            try:
                models.append(self.with_family(family, options))
            except CompressionError as exc:
                problems[family] = str(exc)
        progress(len(families) + 1, len(families) + 1, "reviewed")
        return models, problems

    def with_family(self, family: str, options: ReviewOptions) -> Reviewed:
        """Build a family for the task, export it and measure it beside the model."""
        from headrace.compression.export.onnx import OnnxExport
        from headrace.compression.networks.network import Network

        module = build(family, self._task, options.get("seed", 0))
        example = {name: array[:_EXAMPLE_ROWS] for name, array in self._rows.items()}
        data = Dataset(self._rows)
        with tempfile.TemporaryDirectory(prefix="headrace-review-") as folder:
            context = StepContext(Path(folder), Splits(data, data, data, data), threads=options.get("threads", 1))
            made = OnnxExport().export(Network(family, module, example, ("scores",)), context)
            measured = measure(made, self._package, inputs=self._rows, row_sizes=self._row_sizes, **_measuring(options))
        return _reviewed(family, measured, (parameters_of(module), multiply_adds(module, example)))


def _reviewed(name: str, measured: Measurement, counts: tuple[int | None, int | None]) -> Reviewed:
    figures = measured.candidate
    return Reviewed(
        name,
        *counts,
        figures.file_bytes,
        figures.peak_bytes,
        {each.rows: each.candidate.seconds for each in measured.rows},
        {each.rows: each.ratio for each in measured.rows if each.ratio is not None},
    )


def _measuring(options: ReviewOptions) -> MeasureOptions:
    return {"threads": options.get("threads", 1), "seconds": options.get("seconds", 1.0)}


def _random_images(package: ModelPackage, task: ImageTask) -> Tensors:
    shape = (_EXAMPLE_ROWS, task.channels, task.height, task.width)
    return {package.manifest.inputs[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}


def _count(package: ModelPackage, network: Network | None) -> tuple[int | None, int | None]:
    if network is not None:
        return parameters_of(network.module), multiply_adds(network.module, network.example)
    return count_onnx(package.file) if package.manifest.runtime == "onnxruntime" else (None, None)


def _row(model: Reviewed, row_sizes: Sequence[int]) -> tuple[str, ...]:
    counts = ("?" if count is None else _short(count) for count in (model.parameters, model.multiply_adds))
    return (model.name, *counts, f"{_short(model.file_bytes)}B", *(_time(model, rows) for rows in row_sizes))


def _time(model: Reviewed, rows: int) -> str:
    milliseconds = f"{model.seconds[rows] * 1e3:.3g} ms"
    return f"{milliseconds} ({model.times_faster[rows].median:.2g}x)" if rows in model.times_faster else milliseconds


def _short(count: float) -> str:
    """Write a count in three digits: 39.1 k, 1.24 M."""
    for unit in ("", " k", " M", " G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"
