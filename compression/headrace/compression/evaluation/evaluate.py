"""Evaluation of a model's outputs: a metric with its confidence interval, and the drop against the original."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, DataError
from headrace.compression.evaluation.bootstrap import interval, resample
from headrace.compression.evaluation.metrics import Metric, Unit
from headrace.compression.evaluation.prediction import predict
from headrace.contracts import ModelPackage, Tensors

#: A drop relative to an original that makes no error at all counts from here, to stay finite.
_LEAST_ERROR: Final = 1e-12


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
    check_alike(outputs, own, metric, len(dataset))
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


def check_alike(outputs: Tensors, reference: Tensors, metric: Metric, rows: int) -> None:
    """Raise CompressionError when an output is missing, has other rows, or another shape than the reference's."""
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
    kept = ~(not_finite(outputs[metric.output]) | not_finite(reference[metric.output]))
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
        found |= not_finite(array) & (True if expected is None else ~not_finite(expected))
    return found


def not_finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of an array hold NaN or infinity."""
    # BF16 is of kind V to numpy.
    if array.dtype.kind not in "fV":
        return np.zeros(len(array), np.bool_)
    numbers = array.astype(np.float32) if array.dtype.kind == "V" else array
    result: NDArray[np.bool_] = ~np.isfinite(numbers.reshape(len(array), -1)).all(axis=1)
    return result
