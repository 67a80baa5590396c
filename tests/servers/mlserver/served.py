"""The models of every server of these tests, for MLServer."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, ResponseOutput

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


class Served(MLModel):
    """One model; its input is `x`, its output `y`."""

    async def load(self) -> bool:
        datatype, size = TENSORS[self.name]
        self.inputs = [MetadataTensor(name="x", datatype=datatype, shape=[-1, size])]
        self.weights = dense_weights() if self.name in PASSES else []
        self.outputs = [MetadataTensor(name="y", datatype=datatype, shape=[-1, size])]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = self.text(payload) if self.name == "text" else self.numbers(payload)
        if self.name == "slow":
            await asyncio.sleep(1)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    def numbers(self, payload: InferenceRequest) -> ResponseOutput:
        x = NumpyCodec.decode_input(payload.inputs[0])
        if x.shape[1:] != (TENSORS[self.name][1],):
            raise InferenceError(f"x has the shape {x.shape}")
        if self.weights:
            for _ in range(PASSES[self.name]):
                x = np.maximum(x @ self.weights[0], 0) @ self.weights[1]
            return NumpyCodec.encode_output("y", x)
        return NumpyCodec.encode_output("y", x * x.dtype.type(2) + x.dtype.type(1))

    def text(self, payload: InferenceRequest) -> ResponseOutput:
        words = StringCodec.decode_input(payload.inputs[0])
        return StringCodec.encode_output("y", [word.upper() for word in words])
