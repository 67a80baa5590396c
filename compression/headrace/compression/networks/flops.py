"""Counts of a model's parameters and multiply-adds (a weight times a value, for one row)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from headrace.contracts import Tensors

#: Operators by what one number of their result takes: the product of these dimensions of an input (by its index).
_PER_RESULT: Final[dict[str, tuple[int, Callable[[list[int], dict[str, int]], int]]]] = {
    "Conv": (1, lambda weight, _options: prod(weight[1:])),
    "QLinearConv": (3, lambda weight, _options: prod(weight[1:])),
    "ConvInteger": (1, lambda weight, _options: prod(weight[1:])),
    "FusedConv": (1, lambda weight, _options: prod(weight[1:])),
    "Gemm": (0, lambda given, options: given[0 if options.get("transA") else -1]),
    "MatMul": (0, lambda given, _options: given[-1]),
    "MatMulInteger": (0, lambda given, _options: given[-1]),
    "QLinearMatMul": (0, lambda given, _options: given[-1]),
}


#: INT64, BOOL and STRING constants are shapes, indices, masks and words.
_NOT_WEIGHTS: Final = frozenset({7, 8, 9})


def parameters_of(module: nn.Module) -> int:
    """Count the parameters of a torch module."""
    return sum(each.numel() for each in module.parameters())


def multiply_adds(module: nn.Module, inputs: Tensors) -> int:
    """Count the multiply-adds of one row of `inputs` in a torch module, by torch's FlopCounterMode.

    That counts two for a multiplication and its addition; this counts one, as the papers of the families do.
    Convolutions, matrix products and attention count; elementwise operators don't.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from headrace.compression.networks.network import as_tensor

    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    arguments = [as_tensor(array[:1]).to(device) for array in inputs.values()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*arguments)
    return int(counter.get_total_flops()) // 2


def count_onnx(file: Path) -> tuple[int, int | None]:
    """Count the parameters of an ONNX file, and its multiply-adds for one row; None where a shape is not known.

    Parameters are the numbers in its constants, but for whole numbers of 64 bits and single ones; in a quantized file
    they include scales.
    """
    import onnx

    model = onnx.load(file)
    numbers = [each for each in model.graph.initializer if each.data_type not in _NOT_WEIGHTS]
    parameters = sum(prod(each.dims) for each in numbers if prod(each.dims) > 1)
    for given in model.graph.input:
        shape = given.type.tensor_type.shape.dim
        if shape:
            shape[0].dim_value = 1
    # Shapes that the exporter noted for any number of rows would contradict those inferred for one.
    del model.graph.value_info[:]
    for given in model.graph.output:
        given.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return parameters, _count(inferred)


def _count(model: Any) -> int | None:
    from onnx import helper

    graph = model.graph
    shapes: dict[str, list[int]] = {each.name: list(each.dims) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type not in _PER_RESULT:
            continue
        at, per_result = _PER_RESULT[node.op_type]
        given, result = shapes.get(node.input[at]), shapes.get(node.output[0])
        if not given or not result or 0 in given or 0 in result:
            return None
        options = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        total += prod(result) * per_result(given, options)
    return total
