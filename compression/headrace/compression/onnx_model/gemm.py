"""Gemm in the forms that quantizers bear: with a bias of one dimension, or as MatMul and Add."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from headrace.compression.onnx_model.source import array_of, attribute, drop_unused_weights, weights_of

if TYPE_CHECKING:
    import onnx

#: Bytes of a quantized bias, for each of its numbers: 32 bits, and a scale.
_BIAS_BYTES: Final = 8


def flatten_biases(model: onnx.ModelProto) -> None:
    """Write the constant bias of every Gemm as [columns], where it is [1, columns], [1] or a single number.

    That is the same to Gemm, and the only form that ONNX Runtime's quantizer takes with a scale for each channel.
    """
    from onnx import numpy_helper

    weights = weights_of(model.graph)
    for node in model.graph.node:
        bias = weights.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) > 2 else None
        weight = weights.get(node.input[1]) if bias is not None else None
        if bias is None or weight is None or len(weight.dims) != 2:
            continue
        columns = weight.dims[0 if attribute(node, "transB", 0) else 1]
        size = int(np.prod(bias.dims))
        if list(bias.dims) == [columns] or size not in {1, columns} or (len(bias.dims) == 2 and bias.dims[0] != 1):
            continue
        flat = np.ascontiguousarray(np.broadcast_to(array_of(bias).reshape(-1), (columns,)))
        name = f"{bias.name}_flat_{columns}"
        if name not in weights:
            weights[name] = numpy_helper.from_array(flat, name)
            model.graph.initializer.append(weights[name])
        node.input[2] = name
    drop_unused_weights(model.graph)


def better_split(model: onnx.ModelProto, chosen: set[str]) -> set[str]:
    """Name the chosen Gemms that static int8 serves better as MatMul and a sum.

    Some read one weight so often that their biases would outweigh what int8 saves of it: the scale of an int8 bias is
    that of the weight times that of what flows in, so that each node needs its own. Others scale their product (alpha),
    which ONNX Runtime has no int8 kernel for, so that it would compute them in float and convert all around.
    """
    weights = weights_of(model.graph)
    gemms = [
        node for node in model.graph.node if node.name in chosen and node.op_type == "Gemm" and node.input[1] in weights
    ]
    readers = Counter(node.input[1] for node in gemms)
    return {
        node.name
        for node in gemms
        if attribute(node, "alpha", 1) != 1 or _has_heavy_bias(node, weights, readers[node.input[1]])
    }


def _has_heavy_bias(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], readers: int) -> bool:
    bias = weights.get(node.input[2]) if len(node.input) > 2 else None
    if bias is None or readers < 2:
        return False
    return bool(_BIAS_BYTES * readers * np.prod(bias.dims) > np.prod(weights[node.input[1]].dims))


def split_gemms(model: onnx.ModelProto, chosen: set[str], *, adds: Literal["Add", "Sum"] = "Add") -> None:
    """Write Gemm as MatMul and Add where its weight is constant, for steps that know MatMul alone.

    chosen: names of the nodes; the MatMul keeps the name. Weights are transposed and scaled once, here. adds: what adds
    the bias; ONNX Runtime joins a MatMul and an Add that it finds in a file to a Gemm, but not a MatMul and a Sum.
    """
    from onnx import TensorProto, helper

    weights = weights_of(model.graph)
    made: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.name not in chosen or attribute(node, "transA", 0):
            nodes.append(node)
            continue
        weight = _as_multiplied(node, weights[node.input[1]])
        made[weight.name] = weight
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.name}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight.name], [product], name=node.name))
        if biased:
            model.graph.value_info.append(helper.make_tensor_value_info(product, TensorProto.FLOAT, None))
            nodes += _scaled_bias(model, node, product, adds)
    model.graph.initializer.extend(tensor for name, tensor in made.items() if name not in weights)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model.graph)


def _as_multiplied(gemm: onnx.NodeProto, weight: onnx.TensorProto) -> onnx.TensorProto:
    """Return a Gemm's weight as MatMul takes it; Gemms that share a weight get one of the same name."""
    from onnx import numpy_helper

    turned, alpha = attribute(gemm, "transB", 0), attribute(gemm, "alpha", 1)
    if not turned and alpha == 1:
        return weight
    values = array_of(weight)
    values = (values.T if turned else values) * np.float32(alpha)
    name = weight.name + "_turned" * bool(turned) + f"_times_{alpha:g}" * (alpha != 1)
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _scaled_bias(model: onnx.ModelProto, gemm: onnx.NodeProto, product: str, adds: str) -> list[onnx.NodeProto]:
    from onnx import helper, numpy_helper

    nodes = []
    bias, beta = gemm.input[2], attribute(gemm, "beta", 1)
    if beta != 1:
        model.graph.initializer.append(numpy_helper.from_array(np.array(beta, np.float32), f"{gemm.name}_beta"))
        nodes.append(helper.make_node("Mul", [bias, f"{gemm.name}_beta"], [f"{gemm.name}_bias"], name=f"{gemm.name}_b"))
        bias = f"{gemm.name}_bias"
    nodes.append(helper.make_node(adds, [product, bias], [gemm.output[0]], name=f"{gemm.name}_add"))
    return nodes
