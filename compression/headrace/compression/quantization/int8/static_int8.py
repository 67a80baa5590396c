"""Int8 weights and activations with ranges found beforehand: the fastest form of most convolutional networks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import advice, chosen_nodes
from headrace.compression.onnx_model.gemm import better_split, split_gemms
from headrace.compression.onnx_model.preparation import prepare
from headrace.compression.onnx_model.source import (
    attribute,
    consumers,
    drop_unused_weights,
    graphs_of,
    keep_layer_norms_apart,
    nodes_of,
    producers,
    read_model,
    refuse_quantized,
    weighted_nodes,
    weights_of,
)
from headrace.compression.onnx_model.verify import checked_rows, finish
from headrace.compression.quantization.int8.calibration import MINIMUM_ROWS, Method, Ranges, find_ranges, float_tensors
from headrace.compression.quantization.int8.float_start import after_a_layer, pool_first
from headrace.compression.quantization.int8.processor import needs_narrow_weights
from headrace.compression.quantization.int8.quantizer import manner, per_channel_or_tensor, run_quantizer
from headrace.compression.quantization.int8.sensitivity import WEIGHTED, left_in_float
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx

#: Operators that ONNX Runtime's CPU provider runs on int8. Others (Softmax, LayerNormalization, ArgMax…) would only be
#: wrapped in conversions, which costs time and accuracy.
OPERATORS: Final = (
    *WEIGHTED,
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


#: What ONNX Runtime's quantizer adds to the name of a tensor that was an output of the model.
_RENAMED: Final = "_QuantizeLinear_Input"


@dataclass(frozen=True)
class StaticInt8:
    """Make weights and activations int8, in the QDQ form of ONNX; ranges come from calibration rows.

    method: how ranges are found (see `find_ranges`). percentile: of the values that stay within, for that method.
    per_channel: a scale for each output channel of a weight; rarely slower and never less accurate.
    operators: that are made int8. exclude: names of nodes or operators left in float.
    sensitive_share: of the layers, the part that is left in float because the outputs suffer most from them; found by
    measuring. min_channels: convolutions of fewer input channels stay in float: of one to three channels, as in the
    first layer of image models, int8 kernels take two to three times as long.
    activations: uint8 for x86, where its kernels are; int8 for ARM.
    weight_bits: 8 or 7; None takes 7 where the processor's int8 products may overflow (x86 without VNNI).
    """

    method: Method = "minmax"
    per_channel: bool = True
    operators: tuple[str, ...] = OPERATORS
    exclude: tuple[str, ...] = ()
    sensitive_share: float = 0.0
    min_channels: int = 4
    percentile: float = 99.99
    activations: Literal["uint8", "int8"] = "uint8"
    weight_bits: Literal[7, 8] | None = None

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the int8 package. Raises DataError when there are fewer than 32 calibration rows, or wrong ones."""
        model = read_model(package, "StaticInt8")
        refuse_quantized(model, "StaticInt8")
        rows = checked_rows(package, context, MINIMUM_ROWS)
        folder = context.step_dir(self)
        model = prepare(model, folder)
        chosen = self._chosen(model)
        layers = [node.name for node in weighted_nodes(model.graph, WEIGHTED) if node.name in chosen]
        if not layers:
            raise NotApplicable("no Conv, Gemm or MatMul with constant weights is left for StaticInt8 to quantize")
        left_out = left_in_float(model, rows, context, layers, self.sensitive_share)
        chosen -= set(left_out)
        split_gemms(model, better_split(model, chosen), adds="Sum")
        chosen = after_a_layer(model, chosen)
        keep_layer_norms_apart(model)
        pool_first(model, chosen)
        ranges = find_ranges(model, rows, context, self.method, self.percentile)
        _refuse_without_range(model, chosen, ranges)
        narrow = needs_narrow_weights() if self.weight_bits is None else self.weight_bits == 7
        facts = {
            "layers": len(layers) - len(left_out),
            "left_in_float": list(left_out),
            "weight_bits": 7 if narrow else 8,
            "calibration_rows": len(rows),
        }

        def made(per_channel: bool, tried: dict[str, Any]) -> ModelPackage:
            step = dataclasses.replace(self, per_channel=per_channel)
            quantized = step._quantize(model, ranges, chosen, narrow, bool(tried))
            let_branches_read_int8(quantized)
            leave_results_in_float(quantized, chosen, {node.name: node.output[0] for node in model.graph.node})
            return finish(quantized, package, context, folder, {**step_record(step), **facts, **tried})

        return per_channel_or_tensor(model, self.per_channel, made)

    def _chosen(self, model: onnx.ModelProto) -> set[str]:
        """Name the nodes to quantize; of MatMul those with constant weights: both sides in int8 cost much accuracy."""
        chosen = chosen_nodes(model, self.exclude)
        weighted = {node.name for node in weighted_nodes(model.graph, WEIGHTED)}
        weights = weights_of(model.graph)
        return {
            node.name
            for node in model.graph.node
            if node.name in chosen
            and node.op_type in self.operators
            and (node.op_type not in WEIGHTED or node.name in weighted)
            and not self._thin(node, weights)
        }

    def _thin(self, node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
        # Depthwise convolutions have one channel a group, but a kernel of their own.
        whole = node.op_type == "Conv" and attribute(node, "group", 1) == 1
        return whole and weights[node.input[1]].dims[1] < self.min_channels

    def _quantize(
        self, model: onnx.ModelProto, ranges: Ranges, chosen: set[str], narrow: bool, again: bool
    ) -> onnx.ModelProto:
        from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

        measured = {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
        }
        signed = self.activations == "int8"
        return run_quantizer(
            model,
            lambda copied: QDQQuantizer(
                copied,
                self.per_channel,
                narrow,
                QuantType.QInt8,
                QuantType.QInt8 if signed else QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, measured),
                sorted(chosen),
                [],
                list(self.operators),
                # Signed activations are symmetric: ARM's kernels and ONNX Runtime's fusions expect zero at 0.
                {"ActivationSymmetric": signed, "WeightSymmetric": True},
            ),
            manner(self.per_channel, again),
        )


def _refuse_without_range(model: onnx.ModelProto, chosen: set[str], ranges: Ranges) -> None:
    """Raise CompressionError when NaN or infinity flows to or from a node that int8 was chosen for."""
    odd = set(float_tensors(model)) - ranges.keys()
    around = [
        node for node in model.graph.node if node.name in chosen and odd.intersection((*node.input, *node.output))
    ]
    if around:
        name = next(name for name in (*around[0].input, *around[0].output) if name in odd)
        raise CompressionError(
            f"the model makes NaN or infinity in {name!r} on calibration rows, which no int8 range holds; leave out "
            f"what touches it with {advice(node.name for node in around)}, or leave out such rows"
        )


def let_branches_read_int8(model: onnx.ModelProto) -> None:
    """Make inner graphs, such as the branches of an If, read the rounded tensors that the outer graph reads.

    ONNX Runtime's quantizer forgets them, but takes away every Relu whose work the rounding does.
    """
    rounded = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    restored = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    renamed = {name: restored[code] for name, code in rounded.items() if code in restored}
    for node in model.graph.node:
        for inner in graphs_of(node):
            for reader in nodes_of(inner):
                reader.input[:] = [renamed.get(name, name) for name in reader.input]


def leave_results_in_float(model: onnx.ModelProto, chosen: set[str], named: dict[str, str]) -> None:
    """Undo int8 where a Gemm or MatMul ends a stretch of it, as with the logits that Softmax and ArgMax read.

    Their kernels can give float at no cost. With 255 steps the two highest logits would often be the same.
    named: what each node's result was called before. Where it has another name now, the quantizer took a Relu or Clip
    away and gave its name to the node before it: there the rounding does their work, and stays.
    """
    readers, makers = consumers(model.graph), producers(model.graph)
    outputs = {output.name for output in model.graph.output}
    gone: set[str] = set()
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if maker is None or maker.op_type not in {"Gemm", "MatMul"} or node.input[0] in outputs:
            continue
        if maker.output[0].removesuffix(_RENAMED) != named.get(maker.name):
            continue
        backs = readers.get(node.output[0], [])
        after = [reader for back in backs for reader in readers.get(back.output[0], [])]
        if len(backs) != 1 or any(reader.name in chosen for reader in after):
            continue
        # What follows reads the name it always read; only its maker is another.
        for reader in readers[node.input[0]]:
            reader.input[:] = [backs[0].output[0] if name == node.input[0] else name for name in reader.input]
        maker.output[0] = backs[0].output[0]
        gone |= {node.name, backs[0].name}
    kept = [node for node in model.graph.node if node.name not in gone]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unused_weights(model.graph)
