"""A model server of the Open Inference Protocol over gRPC, in this process, whose answers a test writes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tests.runtimes.remote.wrong_answers import message

from headrace.runtimes.remote.messages import oip

#: What a model of the server answers a batch with: a message, or the bytes of one.
Behaviour = Callable[[Any, Any], Any]


def x_of(request: Any) -> NDArray[np.float32]:
    """Return the input of a request, FP32 [rows, 1]."""
    (tensor,) = request.inputs
    return np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)


def well(request: Any, context: Any) -> Any:
    """Answer y = 2·x."""
    return message(2 * x_of(request))


def refusing(code: grpc.StatusCode, text: str = "no") -> Behaviour:
    """Return a behaviour that refuses every batch so."""

    def refuse(request: Any, context: Any) -> Any:
        context.abort(code, text)

    return refuse


@dataclass
class Model:
    """One model of a server: what it does now, and the rows of the batches that came."""

    infer: Behaviour = well
    metadata: Behaviour | None = None
    ready: Callable[[], bool] = lambda: True
    calls: list[int] = field(default_factory=list)


class GrpcPeer:
    """Listens until `close`; each name is a model."""

    def __init__(self, **options: Any) -> None:
        self.models: dict[str, Model] = defaultdict(Model)
        self._lock = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0), *options.items()], compression=None
        )
        methods: dict[str, tuple[Behaviour, Any]] = {
            "ModelInfer": (self._infer, oip.ModelInferRequest),
            "ModelMetadata": (self._metadata, oip.ModelMetadataRequest),
            "ModelReady": (self._ready, oip.ModelReadyRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                run, request_deserializer=kind.FromString, response_serializer=_bytes_of
            )
            for name, (run, kind) in methods.items()
        }
        service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
        self._server.add_generic_rpc_handlers([service])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(0).wait(5)

    def _model(self, name: str) -> Model:
        with self._lock:
            return self.models[name]

    def _infer(self, request: Any, context: Any) -> Any:
        model = self._model(request.model_name)
        model.calls.append(request.inputs[0].shape[0])
        return model.infer(request, context)

    def _metadata(self, request: Any, context: Any) -> Any:
        model = self._model(request.name)
        return (model.metadata or metadata)(request, context)

    def _ready(self, request: Any, context: Any) -> Any:
        return oip.ModelReadyResponse(ready=self._model(request.name).ready())


def metadata(request: Any, context: Any, datatype: str = "FP32", size: int = 1) -> Any:
    """Answer the metadata of a model with the input `x` and the output `y`."""
    message = oip.ModelMetadataResponse(name=request.name, versions=["1"])
    for tensors, name in ((message.inputs, "x"), (message.outputs, "y")):
        tensors.add(name=name, datatype=datatype, shape=[-1, size])
    return message


def _bytes_of(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())
