"""Weights of 8 or 4 bits in blocks; activations and sums stay float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

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
from headrace.compression.onnx_model.verify import finish
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class WeightOnly:
    """Store the weights of MatMul and Gemm in 8 or 4 bits, with a scale and a zero for each block of a column.

    For models whose time goes into reading weights (large ones, few rows at a time), and for smaller files. Needs no
    calibration, and no answer depends on its neighbours in a batch.

    bits: 8 or 4. block: numbers that share a scale: a power of two from 16 on. exclude: names of nodes or operators
    left in float.
    """

    bits: Literal[4, 8] = 8
    block: int = 32
    exclude: tuple[str, ...] = ()

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the package. Raises NotApplicable when no MatMul or Gemm has constant weights."""
        if self.bits not in {4, 8} or self.block < 16 or self.block & (self.block - 1):
            raise CompressionError(
                f"WeightOnly has 4 or 8 bits and blocks of 16, 32, 64, 128…, not {self.bits} bits and {self.block}"
            )
        model = read_model(package, "WeightOnly")
        refuse_quantized(model, "WeightOnly")
        folder = context.step_dir(self)
        model = prepare(model, folder)
        chosen = chosen_nodes(model, self.exclude)
        flat = {name for name, tensor in weights_of(model.graph).items() if len(tensor.dims) == 2}
        layers = {
            node.name
            for node in weighted_nodes(model.graph, ("MatMul", "Gemm"))
            if node.name in chosen and node.input[1] in flat
        }
        if not layers:
            raise NotApplicable("no MatMul or Gemm with constant weights is left for WeightOnly to store in fewer bits")
        split_gemms(model, layers)
        keep_layer_norms_apart(model)
        self._replace(model, layers)
        record = {**step_record(self), "layers": len(layers)}
        return finish(model, package, context, folder, record)

    def _replace(self, model: onnx.ModelProto, layers: set[str]) -> None:
        from onnx import helper, numpy_helper

        graph, weights = model.graph, weights_of(model.graph)
        made: dict[str, onnx.TensorProto] = {}
        for node in graph.node:
            if node.name not in layers or node.op_type != "MatMul":
                continue
            weight = weights[node.input[1]]
            # Nodes that share a weight share its codes.
            names = [f"{weight.name}/{part}" for part in ("codes", "scales", "zeros")]
            if names[0] not in made:
                arrays: tuple[NDArray[Any], ...] = pack(array_of(weight), self.bits, self.block)
                made.update(zip(names, map(numpy_helper.from_array, arrays, names), strict=True))
            small = helper.make_node(
                "MatMulNBits",
                [node.input[0], *names],
                list(node.output),
                name=node.name,
                domain="com.microsoft",
                K=weight.dims[0],
                N=weight.dims[1],
                bits=self.bits,
                block_size=self.block,
            )
            node.CopyFrom(small)
        graph.initializer.extend(made.values())
        drop_unused_weights(graph)
        if not any(entry.domain == "com.microsoft" for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def pack(
    weight: NDArray[np.float32], bits: int, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Return codes, scales and zeros of a weight [K, N] as MatMulNBits of com.microsoft takes them.

    Codes are UINT8 [N, blocks, block * bits / 8], lower half byte first; scales FP32 [N * blocks]; zeros UINT8, of
    one column after the other, packed as the codes. A number is (code - zero) * scale.
    """
    inner, columns = weight.shape
    blocks = -(-inner // block)
    padded = np.zeros((columns, blocks * block), np.float32)
    padded[:, :inner] = weight.T
    parts = padded.reshape(columns, blocks, block)
    steps = 2**bits - 1
    low, high = np.minimum(parts.min(axis=2), 0), np.maximum(parts.max(axis=2), 0)
    scales = (high - low) / np.float32(steps)
    scales[scales == 0] = 1
    zeros = np.clip(np.round(-low / scales), 0, steps).astype(np.uint8)
    codes = np.clip(np.round(parts / scales[..., None]) + zeros[..., None], 0, steps).astype(np.uint8)
    if bits == 4:
        codes, zeros = _pair(codes), _pair(zeros)
    return codes, scales.astype(np.float32).reshape(-1), zeros.reshape(-1)


def _pair(halves: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put two numbers of 4 bits into a byte, along the last dimension."""
    if halves.shape[-1] % 2:
        halves = np.pad(halves, [*[(0, 0)] * (halves.ndim - 1), (0, 1)])
    return (halves[..., ::2] | (halves[..., 1::2] << 4)).astype(np.uint8)
