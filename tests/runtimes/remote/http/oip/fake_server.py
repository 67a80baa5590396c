"""A server of the Open Inference Protocol that answers in the form of Triton, KServe, MLServer or TorchServe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from tests.runtimes.remote.http.scripted import Answerer, Asked, Reaction, reply

LONG_S = 30.0

#: An object of JSON.
Document: TypeAlias = dict[str, Any]
#: Tensors of a model: name → (datatype, shape with rows).
Specs: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]

TRITON = {
    "name": "triton",
    "version": "2.51.0",
    "extensions": ["model_configuration", "schedule_policy", "binary_tensor_data"],
}
MLSERVER = {"name": "mlserver", "version": "1.7.1", "extensions": []}
KSERVE = {"name": "kserve", "version": "0.21.0", "extensions": ["model_repository_extension"]}
X = np.arange(8, dtype=np.float32).reshape(2, 4)
#: An output as JSON.
Y = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}


def described(inputs: Specs, outputs: Specs) -> Document:
    def tensors(part: Specs) -> list[Document]:
        return [{"name": name, "datatype": kind, "shape": list(shape)} for name, (kind, shape) in part.items()]

    return {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "onnx",
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
    }


MODEL = described({"x": ("FP32", (-1, 4))}, {"y": ("FP32", (-1, 4))})


class FakeServer:
    """Answers by method and path; "infer" is a function of the request. Computes nothing."""

    def __init__(
        self, server: Document | None, infer: Answerer | None = None, paths: Mapping[str, bytes] | None = None
    ) -> None:
        self.server = server
        self.infer = infer or echo
        self.paths = paths or {}

    def __call__(self, asked: Asked) -> Reaction:
        if asked.path in self.paths:
            return self.paths[asked.path]
        if asked.path == "/v2":
            return (
                reply(200, json.dumps(self.server).encode()) if self.server else reply(404, b'{"detail":"Not Found"}')
            )
        if asked.path == "/v2/models/m/infer":
            return self.infer(asked)
        if asked.path == "/v2/models/m":
            return reply(200, json.dumps(MODEL).encode())
        if asked.path == "/v2/models/m/ready":
            return reply(200)
        if asked.path == "/v2/models/m/config":
            return reply(200, b'{"max_batch_size":32}')
        return reply(404, b'{"detail":"Not Found"}')


def parts(asked: Asked) -> tuple[Document, bytes]:
    length = int(asked.headers.get("inference-header-content-length", len(asked.body)))
    return json.loads(asked.body[:length]), asked.body[length:]


def echo(asked: Asked) -> bytes:
    """Answer with the input x as y, in the form in which it came."""
    question, raw = parts(asked)
    (tensor,) = question["inputs"]
    head = {"model_name": "m", "model_version": "3", "id": question["id"], "outputs": [tensor | {"name": "y"}]}
    return answered(head, raw if "inference-header-content-length" in asked.headers else None)


def answered(head: Document, raw: bytes | None = None) -> bytes:
    text = json.dumps(head).encode()
    if raw is None:
        return reply(200, text)
    return reply(200, text + raw, inference_header_content_length=str(len(text)))
