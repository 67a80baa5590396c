"""Measures what a model's outputs are worth, how sure that is, and what a compressed model lost of its original."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.compression.data.row_layout import as_taken, rows_first
from headrace.compression.errors import CompressionError, DataError
from headrace.compression.evaluation.bootstrap import interval, resample
from headrace.compression.evaluation.metrics import NO_CLASS, Metric, Unit
from headrace.compression.evaluation.weighted_statistics import cosines
from headrace.contracts import ConfigurationError, ModelPackage, SignatureMismatch, Tensors
from headrace.contracts.errors import quoted
from headrace.contracts.formatting import first_line
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

#: Rows that one run of a model gets: enough to keep cores busy, little enough for the memory of large models.
BATCH_ROWS: Final = 256

#: A drop relative to an original that makes no error at all counts from here, to stay finite.
_LEAST_ERROR: Final = 1e-12

#: Rounding in the last digits of a difference of two shares is no drop.
_ROUNDING: Final = 1e-9

#: Plain numbers above this are refused as a bound: whoever writes 0.5 most likely means 0.5 %.
_LARGEST_PLAIN: Final = 0.1

_BOUND: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|pt|points?)?", re.IGNORECASE)


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of one model on one dataset, with 95 % intervals of the percentile bootstrap over the rows.

    rows: that count. not_finite_rows: in which some output is NaN or infinite where the original's is not (for the
    original itself: all that it has); metrics of numbers leave them out, and no bound holds with any.
    drop: what was lost against the original on the same rows, positive when worse: the difference of the values for
    unit "points" (0.005 is half a point), the share by which the error grew for unit "relative"; its interval is of
    paired resamples. None for the original itself. An interval of no width (a value of 1.0) doesn't mean certainty.
    """

    metric: str
    output: str
    unit: Unit
    higher_is_better: bool
    value: float
    low: float
    high: float
    rows: int
    not_finite_rows: int = 0
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None

    def describe(self) -> str:
        """Write the value with its interval, and the drop, as people read them."""
        text = f"{self.metric} {self.value:.4g} ({self.low:.4g} to {self.high:.4g})"
        if self.drop is not None:
            unit = "pt" if self.unit == "points" else "%"
            text += f", drop {100 * self.drop:.2f} {unit}"
        return text


@dataclass(frozen=True)
class MaxDrop:
    """The largest loss of a metric that is allowed to a compressed model.

    fraction: 0.005 is half a point of a share (accuracy, f1, auc, r2, agreement, cosine), so 98.9 % may become 98.4 %;
    of an error (rmse, mae), which has the labels' own unit, it is 0.5 % of the original's.
    """

    fraction: float

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a fraction outside 0..1."""
        if not 0 <= self.fraction <= 1:
            raise ConfigurationError(f"a drop of {self.fraction} is not allowed; give 0% to 100%")

    @classmethod
    def parse(cls, text: str) -> MaxDrop:
        """Read "0.5%", "0.5pt" or "0.005", which are all the same. Raises ConfigurationError."""
        found = _BOUND.fullmatch(text.strip())
        if found is None:
            raise ConfigurationError(f"{quoted(text)} is no bound of a drop; write it like 0.5%")
        number = float(found[1])
        if found[2]:
            return cls(number / 100)
        if number > _LARGEST_PLAIN:
            raise ConfigurationError(f"a drop of {text} would be {100 * number:g} points; write {text}% or {text}pt")
        return cls(number)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{round(100 * self.fraction, 10):g}%"


def within(evaluation: Evaluation, bound: MaxDrop) -> bool:
    """Whether a compressed model lost no more than allowed on the measured rows; never with rows that are not finite.

    An original, which has no drop, is within any bound.
    """
    return _at_most(evaluation, evaluation.drop, bound)


def surely_within(evaluation: Evaluation, bound: MaxDrop) -> bool:
    """Whether the worse end of the interval of the drop is within the bound too."""
    return _at_most(evaluation, evaluation.drop_high, bound)


def _at_most(evaluation: Evaluation, drop: float | None, bound: MaxDrop) -> bool:
    if drop is None:
        return True
    return evaluation.not_finite_rows == 0 and drop <= bound.fraction + _ROUNDING


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


def evaluate(
    package: ModelPackage, dataset: Dataset, metric: Metric, *, reference: Tensors | None, threads: int, seed: int
) -> Evaluation:
    """Run a package on the CPU and measure it; see `predict` and `assess`, which raise the same."""
    return assess(predict(package, dataset, threads=threads), dataset, metric, reference=reference, seed=seed)


def assess(outputs: Tensors, dataset: Dataset, metric: Metric, *, reference: Tensors | None, seed: int) -> Evaluation:
    """Measure the outputs of a model for all rows of a dataset.

    reference: what the original says of the same rows; None when these are its own. seed: of the resamples; with the
    same, evaluations of several models are paired among each other too.
    Raises DataError when the metric is undefined for these labels, CompressionError when outputs don't match the
    reference's, or no row has finite numbers.
    """
    own = outputs if reference is None else reference
    _check_alike(outputs, own, metric, len(dataset))
    strange = _strange_rows(outputs, reference)
    kept = _usable(outputs, own, metric)
    labels = dataset.labels
    if not kept.all():
        outputs, own = ({name: array[kept] for name, array in part.items()} for part in (outputs, own))
        labels = None if labels is None else labels[kept]
    statistics = [metric.statistic(outputs, labels, own), metric.statistic(own, labels, own)]
    rows = int(kept.sum())
    whole = np.stack([statistic(np.ones((1, rows))) for statistic in statistics], axis=1)
    if np.isnan(whole).any():
        raise DataError(f"{metric.name} is undefined for these {rows} rows: their labels are all the same")
    drawn = resample(statistics if reference is not None else statistics[:1], rows, seed=seed)
    low, high = interval(drawn[:, 0])
    evaluation = Evaluation(
        metric=metric.name,
        output=metric.output,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        value=float(whole[0, 0]),
        low=low,
        high=high,
        rows=rows,
        not_finite_rows=int(strange.sum()),
    )
    if reference is None:
        return evaluation
    drop_low, drop_high = interval(_drops(drawn, metric))
    return msgspec.structs.replace(
        evaluation, drop=float(_drops(whole, metric)[0]), drop_low=drop_low, drop_high=drop_high
    )


def _drops(values: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Return the drop of each pair [compressed, original] in the metric's unit, positive when worse."""
    compressed, original = values[:, 0], values[:, 1]
    worse = original - compressed if metric.higher_is_better else compressed - original
    if metric.unit == "points":
        return worse
    return worse / np.maximum(np.abs(original), _LEAST_ERROR)


def _check_alike(outputs: Tensors, reference: Tensors, metric: Metric, rows: int) -> None:
    for part in (outputs, reference):
        if metric.output not in part:
            raise CompressionError(f"there is no output {metric.output!r} to measure; there is {', '.join(part)}")
        if len(part[metric.output]) != rows:
            raise CompressionError(
                f"output {metric.output!r} has {len(part[metric.output])} rows, but the data have {rows}"
            )
    shapes = [part[metric.output].shape[1:] for part in (outputs, reference)]
    if shapes[0] != shapes[1]:
        raise CompressionError(
            f"output {metric.output!r} has rows of the shape {list(shapes[0])}, the original's have {list(shapes[1])}"
        )


def _usable(outputs: Tensors, reference: Tensors, metric: Metric) -> NDArray[np.bool_]:
    """Return which rows the metric counts. Raises CompressionError when there are none."""
    if metric.family not in {"numbers", "cosine"}:
        return np.ones(len(outputs[metric.output]), np.bool_)
    kept = ~(_not_finite(outputs[metric.output]) | _not_finite(reference[metric.output]))
    if not kept.any():
        raise CompressionError(
            f"output {metric.output!r} is NaN or infinite in every row, so there is nothing to measure"
        )
    return kept


def _strange_rows(outputs: Tensors, reference: Tensors | None) -> NDArray[np.bool_]:
    """Return which rows hold NaN or infinity in an output where the reference's row is finite."""
    found = np.zeros(len(next(iter(outputs.values()))), np.bool_)
    for name, array in outputs.items():
        expected = reference.get(name) if reference is not None else None
        found |= _not_finite(array) & (True if expected is None else ~_not_finite(expected))
    return found


def _not_finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of an array hold NaN or infinity."""
    # BF16 is of kind V to numpy.
    if array.dtype.kind not in "fV":
        return np.zeros(len(array), np.bool_)
    numbers = array.astype(np.float32) if array.dtype.kind == "V" else array
    result: NDArray[np.bool_] = ~np.isfinite(numbers.reshape(len(array), -1)).all(axis=1)
    return result


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """A row for which two models give different answers.

    row: in the dataset, from 0. origin: the row's number in the file it came from. label, original, compressed: the
    class (its name if the package has labels) or the number; None for labels that aren't there and for tensors.
    original_confidence, compressed_confidence: each model's probability of what it says, if it tells.
    moved: for numbers the distance between the two, for tensors 1 − cosine; None for classes.
    """

    row: int
    origin: int
    label: str | float | None
    original: str | float | None
    compressed: str | float | None
    original_confidence: float | None = None
    compressed_confidence: float | None = None
    moved: float | None = None


def disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int = 20
) -> list[Disagreement]:
    """Return the rows for which the compressed model answers differently from the original, the worst first.

    For classes: rows that the original got right and the compressed model gets wrong (without labels: any that
    differ), those first of which it is surest. For numbers and tensors: the rows that moved most.
    """
    _check_alike(compressed, original, metric, len(dataset))
    if metric.kind in {"ids", "text"} or (metric.kind == "scores" and metric.family in {"classes", "agreement", "auc"}):
        return _class_disagreements(original, compressed, dataset, metric, limit)
    return _number_disagreements(original, compressed, dataset, metric, limit)


def _class_disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int
) -> list[Disagreement]:
    before, after = metric.classes(original), metric.classes(compressed)
    truth = metric.truth(dataset.labels) if metric.needs_labels else None
    lost = (before != after) & (True if truth is None else before == truth)
    confidences = (metric.confidence(original, before), metric.confidence(compressed, after, original))
    rows = np.flatnonzero(lost)
    if confidences[1] is not None:
        rows = rows[np.argsort(-np.nan_to_num(confidences[1][rows], nan=2.0), kind="stable")]
    origins = dataset.origins()
    return [
        Disagreement(
            row=int(row),
            origin=int(origins[row]),
            label=None if truth is None else _class_name(truth[row], metric),
            original=_class_name(before[row], metric),
            compressed=_class_name(after[row], metric),
            original_confidence=_number(confidences[0], row),
            compressed_confidence=_number(confidences[1], row),
        )
        for row in rows[:limit]
    ]


def _number_disagreements(
    original: Tensors, compressed: Tensors, dataset: Dataset, metric: Metric, limit: int
) -> list[Disagreement]:
    before, after = metric.numbers(original), metric.numbers(compressed)
    one = before.shape[1] == 1
    with np.errstate(invalid="ignore"):
        far = np.abs(after - before).mean(axis=1) if metric.family != "cosine" else 1 - cosines(after, before)
    # Rows that became non-finite count as infinitely far; rows non-finite in the original are ignored.
    moved = np.where(np.isfinite(far), far, np.inf)
    moved[(before == after).all(axis=1) | _not_finite(before)] = 0
    rows = np.argsort(-moved, kind="stable")[:limit]
    origins = dataset.origins()
    labels = metric.targets(dataset.labels) if metric.needs_labels else None
    return [
        Disagreement(
            row=int(row),
            origin=int(origins[row]),
            label=_number(labels[:, 0], row) if one and labels is not None else None,
            original=_number(before[:, 0], row) if one else None,
            compressed=_number(after[:, 0], row) if one else None,
            moved=_number(moved, row),
        )
        for row in rows
        if moved[row] > 0
    ]


def _class_name(number: np.int64, metric: Metric) -> str | None:
    if number == NO_CLASS:
        return None
    return metric.names[number] if 0 <= number < len(metric.names) else str(number)


def _number(values: NDArray[np.float64] | None, row: np.intp) -> float | None:
    """Return one of the numbers for JSON: None if it isn't finite."""
    if values is None or not math.isfinite(values[row]):
        return None
    return float(values[row])
