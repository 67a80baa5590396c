"""The models of every server of these tests, for Triton's Python backend; config.pbtxt says which one this is."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

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


class TritonPythonModel:
    """One model; its input is `x`, its output `y`."""

    def initialize(self, args: dict[str, Any]) -> None:
        self.name = json.loads(args["model_config"])["name"]
        self.weights = dense_weights() if self.name in PASSES else []

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(triton.InferenceResponse(output_tensors=[triton.Tensor("y", self.compute(x))]))
        return answers

    def compute(self, x: np.ndarray) -> np.ndarray:
        if self.name == "text":
            return np.array([value.upper() for value in x.ravel()], dtype=object).reshape(x.shape)
        if self.weights:
            for _ in range(PASSES[self.name]):
                x = np.maximum(x @ self.weights[0], 0) @ self.weights[1]
            return x
        if self.name == "slow":
            time.sleep(1)
        return x * x.dtype.type(2) + x.dtype.type(1)
