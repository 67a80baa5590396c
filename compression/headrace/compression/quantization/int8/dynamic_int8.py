"""Int8 weights; activations become int8 as they come, with the range they have in each batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import chosen_nodes
from headrace.compression.onnx_model.gemm import split_gemms
from headrace.compression.onnx_model.preparation import prepare
from headrace.compression.onnx_model.source import (
    array_of,
    drop_unused_weights,
    keep_layer_norms_apart,
    read_model,
    refuse_quantized,
    weighted_nodes,
    weights_of,
)
from headrace.compression.onnx_model.verify import checked_rows, finish
from headrace.compression.quantization.int8.calibration import MINIMUM_ROWS
from headrace.compression.quantization.int8.processor import needs_narrow_weights
from headrace.compression.quantization.int8.quantizer import manner, per_channel_or_tensor, run_quantizer
from headrace.compression.quantization.int8.sensitivity import left_in_float
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx

#: What ONNX Runtime multiplies in int8 on the fly. Convolutions it could too, nine times slower than in float.
_OPERATORS: Final = ("MatMul", "Gemm")


@dataclass(frozen=True)
class DynamicInt8:
    """Make the weights of linear layers int8 and multiply in int8; needs no calibration.

    It pays in transformers and other models of large MatMuls. The range of activations is that of a whole batch, so
    an answer depends a little on the rows that share its batch.

    operators: of MatMul, Gemm and Gather (embedding tables: smaller, not faster). per_channel: a scale for each
    output channel: much more accurate, no slower. exclude: names of nodes or operators left in float.
    sensitive_share: of the layers, the part that is left in float because the outputs suffer most from them; found by
    measuring on calibration rows. weight_bits: 8 or 7; None takes 7 on x86 without VNNI.
    """

    operators: tuple[str, ...] = _OPERATORS
    per_channel: bool = True
    exclude: tuple[str, ...] = ()
    sensitive_share: float = 0.0
    weight_bits: Literal[7, 8] | None = None

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the int8 package. Raises NotApplicable when no such operator has constant weights."""
        if unknown := set(self.operators) - {*_OPERATORS, "Gather"}:
            raise CompressionError(
                f"DynamicInt8 can't quantize {', '.join(sorted(unknown))}; it knows MatMul, Gemm and Gather"
            )
        model = read_model(package, "DynamicInt8")
        refuse_quantized(model, "DynamicInt8")
        folder = context.step_dir(self)
        model = prepare(model, folder)
        chosen = chosen_nodes(model, self.exclude)
        operators = tuple(set(self.operators) & set(_OPERATORS))
        layers = [node.name for node in weighted_nodes(model.graph, operators) if node.name in chosen]
        if not layers:
            raise NotApplicable(f"no {' or '.join(self.operators)} with constant weights is left for DynamicInt8")
        left_out: tuple[str, ...] = ()
        if self.sensitive_share:
            rows = checked_rows(package, context, MINIMUM_ROWS)
            left_out = left_in_float(model, rows, context, layers, self.sensitive_share)
        narrow = needs_narrow_weights() if self.weight_bits is None else self.weight_bits == 7
        kept = set(layers) - set(left_out)
        split_gemms(model, kept)
        keep_layer_norms_apart(model)
        tables = shrink_tables(model, chosen) if "Gather" in self.operators else []
        facts = {
            "layers": len(kept),
            "left_in_float": list(left_out),
            "weight_bits": 7 if narrow else 8,
            "tables": tables,
        }

        def made(per_channel: bool, tried: dict[str, Any]) -> ModelPackage:
            step = dataclasses.replace(self, per_channel=per_channel)
            quantized = step._quantize(model, kept, narrow, bool(tried))
            return finish(quantized, package, context, folder, {**step_record(step), **facts, **tried})

        return per_channel_or_tensor(model, self.per_channel, made)

    def _quantize(self, model: onnx.ModelProto, kept: set[str], narrow: bool, again: bool) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantizationMode, QuantType
        from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

        return run_quantizer(
            model,
            lambda copied: ONNXQuantizer(
                copied,
                self.per_channel,
                narrow,
                QuantizationMode.IntegerOps,
                False,  # Not static: there are no ranges.
                # Signed weights are symmetric, which spares a correction; unsigned ones take half as long again.
                QuantType.QInt8,
                QuantType.QUInt8,
                None,
                sorted(kept),
                [],
                ["MatMul"],
                {"MatMulConstBOnly": True, "WeightSymmetric": True},
            ),
            manner(self.per_channel, again),
        )


def shrink_tables(model: onnx.ModelProto, chosen: set[str]) -> list[str]:
    """Make embedding tables int8 with a scale for each row; lookups become float. Gives their nodes."""
    from onnx import TensorProto, helper, numpy_helper

    graph, weights = model.graph, weights_of(model.graph)
    nodes: list[onnx.NodeProto] = []
    done: list[str] = []
    made: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" and node.name in chosen else None
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2 or axis != 0:
            nodes.append(node)
            continue
        values = array_of(table)
        scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        codes, scales = f"{table.name}/codes", f"{table.name}/scales"
        # Several nodes may look up in one table.
        if codes not in made:
            made[codes] = numpy_helper.from_array(np.round(values / scale).astype(np.int8), codes)
            made[scales] = numpy_helper.from_array(scale.astype(np.float32), scales)
        found, factor, real = f"{node.name}/found", f"{node.name}/scale", f"{node.name}/real"
        nodes += [
            helper.make_node("Gather", [codes, node.input[1]], [found], name=f"{node.name}/look_up", axis=0),
            helper.make_node("Gather", [scales, node.input[1]], [factor], name=f"{node.name}/look_up_scale", axis=0),
            helper.make_node("Cast", [found], [real], name=f"{node.name}/cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [real, factor], [node.output[0]], name=node.name),
        ]
        done.append(node.name)
    graph.initializer.extend(made.values())
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_weights(graph)
    return done
