"""A KServe server with the models of every server of these tests. Ports: HTTP, gRPC."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from typing import Any

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput

#: Model → datatype, shape without rows.
TENSORS = {
    "affine": ("FP32", 4),
    "whole": ("INT64", 3),
    "slow": ("FP32", 4),
    "text": ("BYTES", 1),
    "dense": ("FP32", 256),
    "heavy": ("FP32", 256),
    "deep": ("FP32", 256),
}

#: Sizes of `dense`, a network of two layers whose weights are random numbers; the others run it so many times in a row.
SIZES = (256, 1024, 256)
PASSES = {"dense": 1, "heavy": 40, "deep": 400}


def dense_weights() -> list[np.ndarray]:
    """Return the weights, the same in every server. They keep the size of numbers, of which ReLU drops one half."""
    random = np.random.default_rng(0)
    first, second = (
        random.standard_normal(pair, np.float32) / np.float32(np.sqrt(pair[0])) for pair in pairwise(SIZES)
    )
    return [first * np.float32(np.sqrt(2)), second]


class Served(Model):
    """One model; its input is `x`, its output `y`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.weights = dense_weights() if name in PASSES else []
        self.ready = True

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [self.tensor("x")]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [self.tensor("y")]

    def tensor(self, name: str) -> dict[str, Any]:
        datatype, size = TENSORS[self.name]
        return {"name": name, "datatype": datatype, "shape": [-1, size]}

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        tensor: InferInput = payload.inputs[0]
        x = tensor.as_numpy()
        datatype, size = TENSORS[self.name]
        if x.shape[1:] != (size,):
            raise InvalidInput(f"x has the shape {list(x.shape)}, not [-1, {size}]")
        if self.name == "slow":
            await asyncio.sleep(1)
        if datatype == "BYTES":
            y = np.array([value.upper() for value in x.ravel()], dtype=object).reshape(x.shape)
        elif self.weights:
            y = x
            for _pass in range(PASSES[self.name]):
                y = np.maximum(y @ self.weights[0], 0) @ self.weights[1]
        else:
            y = x * x.dtype.type(2) + x.dtype.type(1)
        output = InferOutput("y", list(y.shape), datatype)
        output.set_data_from_numpy(y, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id,
            self.name,
            [output],
            from_grpc=payload.from_grpc,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    http, grpc = map(int, sys.argv[1:])
    ModelServer(http_port=http, grpc_port=grpc, workers=1, enable_docs_url=False).start([Served(n) for n in TENSORS])
