"""Which layers suffer most from int8: each is simulated alone, and the outputs are compared."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.compression.data.row_layout import RowRuns
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.failure_messages import refusal
from headrace.compression.onnx_model.preparation import prepare
from headrace.compression.onnx_model.source import (
    array_of,
    attribute,
    producers,
    read_model,
    refuse_quantized,
    weighted_nodes,
    weights_of,
)
from headrace.compression.onnx_model.verify import checked_rows
from headrace.compression.quantization.int8.calibration import MINIMUM_ROWS, Ranges, find_ranges
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors
from headrace.runtimes.local.onnx_support.session import SessionConfig, SessionFailed, open_session

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

#: What carries weights, and so is worth leaving in float.
WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")

#: Rows that each layer is measured with: their mean error is steady from some dozens on.
_ROWS: Final = 64

#: An output that doesn't change at all counts as this; float32 itself is good for some 140 dB.
_UNCHANGED_DB: Final = 160.0

_FLOAT: Final = 1  # TensorProto.FLOAT


@dataclass(frozen=True)
class LayerSensitivity:
    """The effect of int8 in one layer alone on the outputs of the model.

    node: its name. operator: such as Conv. weights: how many numbers its weight holds. sqnr_db: signal to
    quantization noise of the worst output, in decibel; 20 dB is an error of a tenth, 40 dB of a hundredth.
    """

    node: str
    operator: str
    weights: int
    sqnr_db: float


def sensitivity(package: ModelPackage, context: StepContext, *, layers: int = 64) -> list[LayerSensitivity]:
    """Measure the layers with constant weights, most sensitive first; needs no labels.

    layers: most that are measured; of more, as many are taken evenly from first to last.
    Raises NotApplicable when there is none, DataError when there are fewer than 32 calibration rows.
    """
    model = read_model(package, "the sensitivity of layers")
    refuse_quantized(model, "the sensitivity of layers")
    rows = checked_rows(package, context, MINIMUM_ROWS)
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        model = prepare(model, Path(folder))
    names = [node.name for node in weighted_nodes(model.graph, WEIGHTED)]
    if not names:
        raise NotApplicable(
            "the model has no Conv, Gemm or MatMul with constant weights, so there is nothing to measure"
        )
    return measure(model, rows, context, [names[position] for position in evenly(len(names), layers)])


def most_sensitive(found: Sequence[LayerSensitivity], share: float) -> tuple[str, ...]:
    """Name the most sensitive part of the layers, for `exclude`. share: 0 to 1; rounded up."""
    ranked = sorted(found, key=lambda layer: layer.sqnr_db)
    return tuple(layer.node for layer in ranked[: math.ceil(share * len(ranked))])


def left_in_float(
    model: onnx.ModelProto, rows: RowRuns, context: StepContext, layers: Sequence[str], share: float
) -> tuple[str, ...]:
    """Name the layers that a step leaves in float because they are the most sensitive `share`; none of 0.

    Layers that share a weight stay together, on the side of most of them: the file would hold the weight twice.
    Raises NotApplicable when that leaves no layer at all.
    """
    if not 0 <= share < 1:
        raise CompressionError(f"sensitive_share must be at least 0 and below 1, not {share}")
    if not share:
        return ()
    left = most_sensitive(measure(model, rows, context, layers), share)
    weight = {node.name: node.input[1] for node in model.graph.node if node.name in set(layers)}
    readers, leaving = Counter(weight.values()), Counter(weight[name] for name in left)
    left = tuple(name for name in layers if 2 * leaving[weight[name]] > readers[weight[name]])
    if len(left) == len(layers):
        raise NotApplicable(f"the most sensitive {share:.0%} of {len(layers)} layers are all of them, so none is left")
    return left


def measure(
    model: onnx.ModelProto, rows: RowRuns, context: StepContext, names: Sequence[str]
) -> list[LayerSensitivity]:
    """Simulate int8 in each of the named layers of a prepared model, most sensitive first."""
    sample = rows.take(evenly(len(rows), _ROWS))
    ranges = find_ranges(model, sample, context)
    simulation = _Simulation(model, names, ranges, context.threads)
    plain = simulation.run(sample, None)
    found = []
    for done, name in enumerate(names):
        context.progress(done, len(names), f"sensitivity of {name}")
        noise = [_sqnr_db(want, have) for want, have in zip(plain, simulation.run(sample, name), strict=True)]
        node = simulation.nodes[name]
        found.append(LayerSensitivity(name, node.op_type, simulation.weights[name].size, min(noise)))
    return sorted(found, key=lambda layer: layer.sqnr_db)


def evenly(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` positions, evenly from the first to the last."""
    return sorted({int(position) for position in np.linspace(0, count - 1, min(count, most)).round()})


def rounded(weight: NDArray[Any], axis: int) -> NDArray[np.float32]:
    """Return a weight in float, rounded as int8 with a scale for each channel."""
    others = tuple(dimension for dimension in range(weight.ndim) if dimension != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    scale[scale == 0] = 1
    restored: NDArray[np.float32] = (np.round(weight / scale) * scale).astype(np.float32)
    return restored


def channel_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the dimension of a node's weight that counts its output channels."""
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        return dimensions - 1
    return 1 if node.op_type == "ConvTranspose" else 0


class _Simulation:
    """One session in which every layer can be switched to int8: weights and switches are inputs with defaults."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], ranges: Ranges, threads: int) -> None:
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        # Constant tensors may be inputs with a default from this version of the format on.
        copy.ir_version = max(copy.ir_version, 4)
        graph, wanted, constants = copy.graph, set(names), weights_of(copy.graph)
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.weights: dict[str, NDArray[Any]] = {}
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.name in wanted:
                self.nodes[node.name] = node
                self.weights[node.name] = array_of(constants[node.input[1]])
                nodes += _switch(graph, node, ranges)
            nodes.append(node)
        _free_weights(graph, {node.input[1] for node in self.nodes.values()})
        self._outputs = _float_outputs(copy)
        ordered = onnx.ModelProto()
        ordered.CopyFrom(copy)
        del ordered.graph.node[:]
        ordered.graph.node.extend(nodes)
        self._session = _session(ordered, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}

    def run(self, rows: RowRuns, layer: str | None) -> list[NDArray[Any]]:
        """Return the outputs with one layer in int8, or none."""
        feed: Tensors = {}
        if layer is not None:
            node, weight = self.nodes[layer], self.weights[layer]
            feed = {node.input[1]: rounded(weight, channel_axis(node, weight.ndim)), f"{layer}/on": np.array(True)}
        batches = [
            self._session.run(self._outputs, {**{name: batch[name] for name in batch if name in self._inputs}, **feed})
            for batch in rows.runs()
        ]
        return [np.concatenate([value.reshape(-1) for value in each]) for each in zip(*batches, strict=True)]


def _switch(graph: onnx.GraphProto, node: onnx.NodeProto, ranges: Ranges) -> list[onnx.NodeProto]:
    """Make nodes that round what flows into a layer to uint8 when its switch is on."""
    import onnx
    from onnx import helper, numpy_helper

    name, flows = node.name, node.input[0]
    low, high = ranges.get(flows, (0.0, 0.0))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255 or 1)
    for part, value in (
        ("scale", scale),
        ("zero", np.uint8(np.clip(round(-low / float(scale)), 0, 255))),
        ("on", np.array(False)),
    ):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}/{part}"))
    graph.input.append(helper.make_tensor_value_info(f"{name}/on", onnx.TensorProto.BOOL, []))
    node.input[0] = f"{name}/chosen"
    return [
        helper.make_node("QuantizeLinear", [flows, f"{name}/scale", f"{name}/zero"], [f"{name}/int8"]),
        helper.make_node("DequantizeLinear", [f"{name}/int8", f"{name}/scale", f"{name}/zero"], [f"{name}/rounded"]),
        helper.make_node("Where", [f"{name}/on", f"{name}/rounded", flows], [f"{name}/chosen"]),
    ]


def _free_weights(graph: onnx.GraphProto, names: set[str]) -> None:
    """Make weights inputs with a default."""
    from onnx import helper

    already = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in names - already:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def _float_outputs(model: onnx.ModelProto) -> list[str]:
    """Name the float outputs; where a model has only others, such as labels, what these are made of."""
    graph = model.graph
    floats = [output.name for output in graph.output if output.type.tensor_type.elem_type == _FLOAT]
    if floats:
        return floats
    makers = producers(graph)
    known = {value.name: value for value in graph.value_info if value.type.tensor_type.elem_type == _FLOAT}
    behind = [
        name for output in graph.output if output.name in makers for name in makers[output.name].input if name in known
    ]
    if not behind:
        raise NotApplicable("no output is float, nor made of float, so the noise in it can't be measured")
    graph.output.extend(known[name] for name in dict.fromkeys(behind))
    return list(dict.fromkeys(behind))


def _session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    try:
        return open_session(model, SessionConfig(threads=threads))
    except SessionFailed as exc:
        raise CompressionError(
            refusal(
                "onnxruntime",
                "simulate int8 in this model",
                exc.cause,
                model,
                "recipes that measure no layers, such as int8-static, don't need that",
            )
        ) from exc.cause


def _sqnr_db(want: NDArray[Any], have: NDArray[Any]) -> float:
    signal = float(np.sum(np.square(want, dtype=np.float64)))
    noise = float(np.sum(np.square(want.astype(np.float64) - have)))
    if noise == 0:
        return _UNCHANGED_DB
    return min(_UNCHANGED_DB, 10 * math.log10(signal / noise)) if signal else 0.0
