"""fp16: half the size, and faster on GPUs; inputs and outputs stay as they are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.excluded import advice, chosen_nodes
from headrace.compression.onnx_model.failure_messages import failure
from headrace.compression.onnx_model.preparation import prepare
from headrace.compression.onnx_model.source import (
    array_of,
    consumers,
    producers,
    read_model,
    refuse_quantized,
)
from headrace.compression.onnx_model.verify import checked_rows, finish
from headrace.compression.quantization.int8.calibration import Ranges, find_ranges
from headrace.compression.silence import unlogged
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx

#: The largest number that fp16 holds.
_LARGEST: Final = float(np.finfo(np.float16).max)

_FLOAT: Final = 1  # TensorProto.FLOAT


@dataclass(frozen=True)
class HalfPrecision:
    """Make weights and activations fp16; inputs and outputs keep their datatypes.

    For GPUs: most CPUs compute fp16 in float32 and convert before and after each operator, which is slower.
    exclude: names of nodes or operators left in float.
    """

    exclude: tuple[str, ...] = ()

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the fp16 package.

        Raises NotApplicable when the model has no float32 weights, CompressionError naming the first layer whose
        values on calibration rows fp16 can't hold; without such rows that isn't known.
        """
        model = read_model(package, "HalfPrecision")
        refuse_quantized(model, "HalfPrecision")
        folder = context.step_dir(self)
        model = prepare(model, folder)
        # Not before: some exporters write weights as nodes.
        if not any(tensor.data_type == _FLOAT for tensor in model.graph.initializer):
            raise NotApplicable("the model has no float32 weights for HalfPrecision to make smaller")
        left = {node.name for node in model.graph.node} - chosen_nodes(model, self.exclude)
        _narrow_constants(model)
        record = step_record(self)
        if len(context.data.calibration):
            ranges = find_ranges(model, checked_rows(package, context, 1), context)
            record["largest_value"] = _largest(model, ranges, left)
        return finish(_halve(model, left), package, context, folder, record)


def _narrow_constants(model: onnx.ModelProto) -> None:
    """Bring constants into fp16's range, with room to add to them: the -3e38 of attention masks must not overflow."""
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == _FLOAT and np.abs(array_of(tensor)).max(initial=0) > _LARGEST:
            narrow = np.clip(array_of(tensor), -_LARGEST / 2, _LARGEST / 2)
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))


def _largest(model: onnx.ModelProto, ranges: Ranges, left: set[str]) -> float:
    """Return the largest value that flows; ONNX Runtime computes fp16 in float32 on CPUs, where nothing overflows."""
    makers, readers = producers(model.graph), consumers(model.graph)
    over: dict[str, list[onnx.NodeProto]] = {}
    for name, (low, high) in ranges.items():
        maker = makers.get(name)
        around = [*readers.get(name, []), *([maker] if maker else [])]
        if max(-low, high) > _LARGEST and any(node.name not in left for node in around):
            over[name] = around
    if over:
        first = next(iter(over))
        where = f"{makers[first].op_type} {makers[first].name!r}" if first in makers else "the input"
        names = dict.fromkeys(node.name for around in over.values() for node in around)
        raise CompressionError(
            f"fp16 overflows in {where}: {first!r} reaches {max(-ranges[first][0], ranges[first][1]):.3g} on "
            f"calibration rows, but fp16 ends at {_LARGEST:.0f}; leave out all that touches such values with "
            f"{advice(names)}, or scale the inputs"
        )
    return max((max(-low, high) for low, high in ranges.values()), default=0.0)


def _join_casts(model: onnx.ModelProto) -> None:
    """Keep float between nodes left in float: the converter casts through fp16 between any two."""
    from onnx import TensorProto

    graph, makers = model.graph, producers(model.graph)
    for node in graph.node:
        maker = (
            makers.get(node.input[0]) if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT else None
        )
        if maker is not None and maker.name.startswith("graph_input_cast") | maker.name.endswith("_cast_to_fp16_node"):
            node.op_type = "Identity"
            del node.attribute[:]
            node.input[0] = maker.input[0]


def _halve(model: onnx.ModelProto, left: set[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        with unlogged(), warnings.catch_warnings():
            # Values below the smallest of fp16 become it; numpy's remark about that is no news.
            warnings.simplefilter("ignore", RuntimeWarning)
            halved: onnx.ModelProto = convert_float_to_float16(
                model, keep_io_types=True, disable_shape_infer=True, node_block_list=sorted(left)
            )
    except Exception as exc:  # The converter raises ValueError, AssertionError, KeyError, RuntimeError alike.
        raise CompressionError(failure("onnxruntime", "make this model fp16", exc, model)) from exc
    _join_casts(halved)
    return halved
