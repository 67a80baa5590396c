"""The models of every server of these tests, for Triton's Python backend; config.pbtxt says which one this is."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One model; its input is `x`, its output `y`."""

    def initialize(self, args: dict[str, Any]) -> None:
        self.name = json.loads(args["model_config"])["name"]

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = []
        for request in requests:
            x = triton.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(triton.InferenceResponse(output_tensors=[triton.Tensor("y", self.compute(x))]))
        return answers

    def compute(self, x: np.ndarray) -> np.ndarray:
        if self.name == "text":
            return np.array([value.upper() for value in x.ravel()], dtype=object).reshape(x.shape)
        if self.name == "slow":
            time.sleep(1)
        return x * x.dtype.type(2) + x.dtype.type(1)
