"""Calibration: the ranges of activations, measured with every calibration row.

One batch's activations are in memory at a time, whatever the number of rows: the first pass keeps the smallest and the
largest value of each tensor; a second one, for methods that cut outliers off, keeps a histogram of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.row_layout import RowRuns
from headrace.compression.errors import CompressionError
from headrace.compression.onnx_model.failure_messages import refusal
from headrace.compression.steps import StepContext
from headrace.contracts import Tensors
from headrace.contracts.formatting import first_line
from headrace.runtimes.local.onnx_support.session import SessionConfig, SessionFailed, open_session

if TYPE_CHECKING:
    import onnx

Method: TypeAlias = Literal["minmax", "entropy", "percentile"]

#: Smallest and largest value of each tensor.
Ranges: TypeAlias = dict[str, tuple[float, float]]

#: Fewer rows than this say little about what a model will meet; more than some hundred rarely change a range.
MINIMUM_ROWS: Final = 32

#: An int8 tensor has 255 steps. Histograms have a multiple of that, so that each candidate cut is a whole number of
#: bins a step.
_LEVELS: Final = 255
_BINS_PER_LEVEL: Final = 32

#: The narrowest cut tried: a quarter of the range; narrower ones lose on every tensor that was looked at.
_NARROWEST: Final = _BINS_PER_LEVEL // 4


class Probe:
    """A model that also gives what flows between its nodes."""

    def __init__(self, model: onnx.ModelProto, tensors: list[str], threads: int) -> None:
        """tensors: to be given, of those inside. Raises CompressionError when ONNX Runtime can't load the model."""
        import onnx

        probed = onnx.ModelProto()
        probed.CopyFrom(model)
        given = {output.name for output in probed.graph.output}
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in given)
        # Every tensor must be there to be looked at, and as the node gives it.
        config = SessionConfig(threads=threads, optimization="none")
        try:
            self._session = open_session(probed, config)
        except SessionFailed as exc:
            raise CompressionError(
                refusal(
                    "onnxruntime",
                    "load the model to calibrate",
                    exc.cause,
                    model,
                    "try a recipe that needs no ranges, such as int8-dynamic or int8-weights",
                )
            ) from exc.cause
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._tensors = tensors

    def run(self, rows: Tensors) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield every tensor with its values for some rows."""
        feed = {name: array for name, array in rows.items() if name in self._inputs}
        try:
            values = self._session.run(self._tensors, feed)
        except Exception as exc:
            raise CompressionError(f"the model fails on calibration rows: {first_line(exc)}") from exc
        yield from zip(self._tensors, values, strict=True)


def find_ranges(
    model: onnx.ModelProto, rows: RowRuns, context: StepContext, method: Method = "minmax", percentile: float = 99.99
) -> Ranges:
    """Find the range of every float32 tensor that flows between nodes.

    method: minmax takes all; percentile cuts off what is outermost, so that `percentile` % of the values remain;
    entropy cuts where the distribution loses least (Kullback-Leibler divergence; S. Migacz, 8-bit inference with
    TensorRT, 2017). A tensor that held NaN or infinity, or nothing in all rows, has none.
    """
    probe = Probe(model, float_tensors(model), context.threads)
    batches = list(rows.runs())
    passes = 1 if method == "minmax" else 2
    ranges: Ranges = {}
    for done, batch in enumerate(batches):
        context.progress(done, passes * len(batches), "calibration")
        for name, values in probe.run(batch):
            if values.size:
                low, high = float(values.min()), float(values.max())
                was = ranges.get(name, (low, high))
                ranges[name] = float(np.minimum(low, was[0])), float(np.maximum(high, was[1]))
    ranges = {name: found for name, found in ranges.items() if np.isfinite(found).all()}
    if method == "minmax":
        return ranges
    histograms = {name: np.zeros(_LEVELS * _BINS_PER_LEVEL, np.int64) for name in ranges}
    for done, batch in enumerate(batches):
        context.progress(len(batches) + done, passes * len(batches), "calibration")
        for name, values in probe.run(batch):
            if values.size and name in ranges:
                histograms[name] += np.histogram(values, histograms[name].size, _frame(ranges[name]))[0]
    if method == "percentile":
        return {name: _percentile(histograms[name], ranges[name], percentile) for name in ranges}
    return {name: _entropy(histograms[name], ranges[name]) for name in ranges}


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Name the float32 tensors that flow between nodes, in the order of the graph; inputs first."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    floats = {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == 1 and value.name not in weights
    }
    names = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
    return [name for name in dict.fromkeys(names) if name in floats]


def _frame(found: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of a histogram: from zero for tensors of one sign, as after ReLU; else even around zero."""
    low, high = found
    reach = max(abs(low), abs(high)) or 1.0
    return (0.0, reach) if low >= 0 else (-reach, 0.0) if high <= 0 else (-reach, reach)


def _percentile(histogram: NDArray[np.int64], found: tuple[float, float], percentile: float) -> tuple[float, float]:
    low, high = _frame(found)
    edges = np.linspace(low, high, histogram.size + 1)
    cut = (1 - percentile / 100) * histogram.sum()
    # Tensors of one sign have one tail.
    tails = (low < 0) + (high > 0)
    below, above = np.cumsum(histogram), np.cumsum(histogram[::-1])
    lowest = edges[np.searchsorted(below, cut / tails, "right")] if low < 0 else found[0]
    highest = edges[histogram.size - np.searchsorted(above, cut / tails, "right")] if high > 0 else found[1]
    return max(float(lowest), found[0]), min(float(highest), found[1])


def _entropy(histogram: NDArray[np.int64], found: tuple[float, float]) -> tuple[float, float]:
    frame = _frame(found)
    histogram = histogram.copy()
    # Zeros are exact whatever the range; their peak, as after ReLU, would hide all else.
    histogram[_zero_bin(frame, histogram.size)] = 0
    if not histogram.any():
        return found
    losses = [_divergence(*_cut(histogram, width, frame)) for width in range(_NARROWEST, _BINS_PER_LEVEL + 1)]
    kept = (_NARROWEST + int(np.argmin(losses))) / _BINS_PER_LEVEL
    return max(frame[0] * kept, found[0]), min(frame[1] * kept, found[1])


def _zero_bin(frame: tuple[float, float], bins: int) -> int:
    return 0 if frame[0] == 0 else bins - 1 if frame[1] == 0 else bins // 2


def _cut(
    histogram: NDArray[np.int64], width: int, frame: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a histogram cut to `width` bins a step: with the outliers at the ends, and coarse."""
    kept = _LEVELS * width
    # The part that stays: next to zero for tensors of one sign, around it for others.
    start = 0 if frame[0] == 0 else histogram.size - kept if frame[1] == 0 else (histogram.size - kept) // 2
    inside = histogram[start : start + kept].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += histogram[:start].sum()
    clipped[-1] += histogram[start + kept :].sum()
    steps = inside.reshape(_LEVELS, width)
    filled = steps > 0
    coarse = np.where(filled, steps.sum(1, keepdims=True) / np.maximum(filled.sum(1, keepdims=True), 1), 0)
    return clipped, coarse.reshape(-1)


def _divergence(real: NDArray[np.float64], coarse: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of a distribution from its coarse version, in nats."""
    # Outliers may fall into a bin that is empty in the coarse version; a little everywhere keeps the sum finite.
    little = 1e-4
    p = real / real.sum()
    q = (coarse + little) / (coarse + little).sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))
