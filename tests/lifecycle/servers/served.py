"""Models on real gRPC servers of this process: over the Open Inference Protocol, and as TensorFlow Serving has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np
from tests.runtimes.remote.grpc.scripted import Answerer, ScriptedServer

from headrace.contracts.tensors.datatypes import datatype_of, dtype_of
from headrace.runtimes.remote.messages import oip, tfserving
from headrace.runtimes.remote.messages.wire import serialized
from headrace.runtimes.remote.tfserving.tensors import read_tensor, write_tensor

STATUS = grpc.StatusCode


@dataclass
class Served:
    """y = run(x). shape: of x and of y, whole. most_rows: told, and refused above. calls: rows of each batch."""

    run: Callable[[Any], Any] = lambda x: 2 * x
    shape: tuple[int, ...] = (-1, 4)
    datatype: str = "FP32"
    most_rows: int = 0
    refusal: str = ""
    calls: list[int] = field(default_factory=list)

    def answer(self, x: Any, context: grpc.ServicerContext) -> Any:
        self.calls.append(len(x))
        if self.refusal:
            context.abort(STATUS.INVALID_ARGUMENT, self.refusal)
        if self.most_rows and len(x) > self.most_rows:
            context.abort(STATUS.INVALID_ARGUMENT, f"inference request batch-size must be <= {self.most_rows} for 'm'")
        return self.run(x)


def by_oip(served: Served) -> dict[str, Answerer]:
    """Return the calls of a server of the Open Inference Protocol whose model is called m."""

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = oip.ModelInferRequest.FromString(request)
        x = np.frombuffer(asked.raw_input_contents[0], dtype_of(served.datatype)).reshape(asked.inputs[0].shape)
        y = served.answer(x, context)
        answer = oip.ModelInferResponse(model_name="m", model_version="3", id=asked.id)
        answer.outputs.add(name="y", datatype=datatype_of(y.dtype), shape=y.shape)
        answer.raw_output_contents.append(y.tobytes())
        return serialized(answer)

    def metadata(request: bytes, context: grpc.ServicerContext) -> bytes:
        name = oip.ModelMetadataRequest.FromString(request).name
        if name != "m":
            context.abort(STATUS.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        answer = oip.ModelMetadataResponse(name="m", versions=["3"], platform="python")
        for tensors, each in ((answer.inputs, "x"), (answer.outputs, "y")):
            tensors.add(name=each, datatype=served.datatype, shape=served.shape)
        return serialized(answer)

    def config(request: bytes, context: grpc.ServicerContext) -> bytes:
        answer = oip.ModelConfigResponse()
        answer.config.max_batch_size = served.most_rows
        return serialized(answer)

    def ready(request: bytes, context: grpc.ServicerContext) -> bytes:
        return serialized(oip.ModelReadyResponse(ready=True))

    calls: dict[str, Answerer] = {
        "ModelInfer": infer,
        "ModelMetadata": metadata,
        "ModelConfig": config,
        "ModelReady": ready,
    }
    return {f"/inference.GRPCInferenceService/{name}": call for name, call in calls.items()}


def by_tfserving(served: Served) -> dict[str, Answerer]:
    """Return the calls of a TensorFlow Serving whose model has version 7, labelled stable."""

    def predict(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = tfserving.PredictRequest.FromString(request)
        response = tfserving.PredictResponse()
        response.model_spec.version.value = 7
        y = served.answer(read_tensor(asked.inputs["x"], "x"), context)
        response.outputs["y"].ParseFromString(b"".join(write_tensor(y)))
        return serialized(response)

    def metadata(request: bytes, context: grpc.ServicerContext) -> bytes:
        spec = tfserving.GetModelMetadataRequest.FromString(request).model_spec
        if spec.version_label not in ("", "stable"):
            context.abort(STATUS.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
        signatures = tfserving.SignatureDefMap()
        for side, name in (("inputs", "x"), ("outputs", "y")):
            info = getattr(signatures.signature_def["serving_default"], side)[name]
            info.name, info.dtype = name, tfserving.DATA_TYPES["DT_FLOAT"]
            for size in served.shape:
                info.tensor_shape.dim.add(size=size)
        response = tfserving.GetModelMetadataResponse()
        response.model_spec.version.value = 7
        response.metadata["signature_def"].value = serialized(signatures)
        return serialized(response)

    def status(request: bytes, context: grpc.ServicerContext) -> bytes:
        response = tfserving.GetModelStatusResponse()
        response.model_version_status.add(version=7, state=tfserving.STATES["AVAILABLE"])
        return serialized(response)

    return {
        "/tensorflow.serving.PredictionService/Predict": predict,
        "/tensorflow.serving.PredictionService/GetModelMetadata": metadata,
        "/tensorflow.serving.ModelService/GetModelStatus": status,
    }


class Serve(Protocol):
    """Starts a server and returns its address."""

    def __call__(self, served: Served, calls: Callable[[Served], Mapping[str, Answerer]] = by_oip) -> str: ...


@contextmanager
def servers() -> Iterator[Serve]:
    """Yield what starts a server of a model, by OIP unless told, and returns its address; all stop at the end."""
    with ExitStack() as stack:

        def start(served: Served, calls: Callable[[Served], Mapping[str, Answerer]] = by_oip) -> str:
            server = ScriptedServer(calls(served))
            stack.callback(server.stop)
            return str(server.address)

        yield start
