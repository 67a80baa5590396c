"""A peer that stands in for TensorFlow Serving, of which there is no package: not the real server.

The official service definitions (`tensorflow-serving-api`), real SavedModels run by TensorFlow, and the rules and error
texts of the real server, as its sources and its documentation have them.

    python -m tests.servers.tfserving.peer CONFIG GRPC_PORT HTTP_PORT
    python -m tests.servers.tfserving.peer --port=8500 --rest_api_port=8501 --model_name=M --model_base_path=/models/M
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
import tensorflow as tf
from google.protobuf.any_pb2 import Any as AnyMessage
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tests.servers.tfserving.loaded import ModelConfig, Registry
from tests.servers.tfserving.rest import RestServer
from tests.servers.tfserving.tensors import from_proto, to_proto

_T = TypeVar("_T")

#: The real server takes 2 GB.
_SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def translated(context: grpc.ServicerContext, call: Callable[[], _T]) -> _T:
    """Return what a call returns; TensorFlow's errors have gRPC's codes."""
    try:
        return call()
    except tf.errors.OpError as exc:
        _abort(context, exc.error_code, exc.message)
    except ValueError as exc:
        _abort(context, 3, str(exc))


def _abort(context: grpc.ServicerContext, code: int, text: str) -> NoReturn:
    context.abort(next(status for status in grpc.StatusCode if status.value[0] == code), text)
    raise AssertionError("abort raises")


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, registry: Registry, as_content: bool) -> None:
        self._registry = registry
        self._as_content = as_content

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        return translated(context, lambda: self._predict(request))

    def _predict(self, request: Any) -> Any:
        servable = self._registry.find(request.model_spec)
        name = request.model_spec.signature_name
        inputs = {key: from_proto(proto) for key, proto in request.inputs.items()}
        outputs = servable.run(name, inputs, tuple(request.output_filter))
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name = request.model_spec.name
        answer.model_spec.signature_name = name or "serving_default"
        answer.model_spec.version.value = servable.version
        for key, array in outputs.items():
            answer.outputs[key].CopyFrom(to_proto(array, self._as_content))
        return answer

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return translated(context, lambda: self._metadata(request))

    def _metadata(self, request: Any) -> Any:
        if list(request.metadata_field) != ["signature_def"]:
            raise tf.errors.InvalidArgumentError(None, None, "Metadata field is not supported")
        servable = self._registry.find(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in servable.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name = request.model_spec.name
        answer.model_spec.version.value = servable.version
        packed = AnyMessage()
        packed.Pack(signatures)
        answer.metadata["signature_def"].CopyFrom(packed)
        return answer


class Models(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        return translated(context, lambda: self._status(request))

    def _status(self, request: Any) -> Any:
        versions = self._registry.versions(request.model_spec.name)
        if request.model_spec.WhichOneof("version_choice"):
            versions = [self._registry.find(request.model_spec).version]
        answer = get_model_status_pb2.GetModelStatusResponse()
        for version in versions:
            available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            answer.model_version_status.add(version=version, state=available).status.SetInParent()
        return answer

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        return translated(context, lambda: self._reload(request))

    def _reload(self, request: Any) -> Any:
        configs = []
        for each in request.config.model_config_list.config:
            known = self._registry.config(each.name)
            batching, delay_s = (known.batching, known.delay_s) if known else (None, 0.0)
            labels = dict(each.version_labels)
            configs.append(ModelConfig(each.name, each.base_path, labels, batching, delay_s))
        self._registry.configure(configs)
        return model_management_pb2.ReloadConfigResponse()


def main(document: dict[str, Any], grpc_port: int, http_port: int) -> None:
    """Serve until the process is ended; models load while the ports are open, as in the real server."""
    registry = Registry()
    server = grpc.server(ThreadPoolExecutor(64), options=_SIZES)
    predictions = Predictions(registry, document.get("as_content", False))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(registry), server)
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    rest = RestServer(registry, http_port)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    registry.configure([ModelConfig(**model) for model in document["models"]])
    server.wait_for_termination()


def flags(words: list[str]) -> tuple[dict[str, Any], int, int]:
    """Return what flags of the real server ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--model_base_path", required=True)
    found = parser.parse_args(words)
    return {"models": [{"name": found.model_name, "base_path": found.model_base_path}]}, found.port, found.rest_api_port


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        main(*flags(sys.argv[1:]))
    else:
        main(json.loads(Path(sys.argv[1]).read_text()), *map(int, sys.argv[2:]))
