"""A model server of the Open Inference Protocol over gRPC, as a process of its own: `python peer.py PORT FOLDER`.

y = 2·x for FP32 [rows, 1]. What it does is in `FOLDER/behaviour.json`, which each call reads anew:

run_s: seconds of a batch. busy, away: how calls are refused. most_rows: larger batches are refused. refuse: batches
that hold this value are. lie: rows are left out of answers. datatype, size: of both tensors. version: that answers.
loading, unloaded: whether the model isn't ready, or isn't there. `FOLDER/calls` gets a line for each batch: its rows,
and how many batches are there at the time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from headrace.contracts.tensors.datatypes import dtype_of
from headrace.runtimes.remote.messages import oip

STATUS = grpc.StatusCode


class Peer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running = 0

    def behaviour(self) -> dict[str, Any]:
        file = self._folder / "behaviour.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def infer(self, request: Any, context: Any) -> Any:
        with self._lock, (self._folder / "calls").open("a") as file:
            self._running += 1
            file.write(f"{request.inputs[0].shape[0]} {self._running}\n")
        try:
            return self._answer(request, context)
        finally:
            with self._lock:
                self._running -= 1

    def _answer(self, request: Any, context: Any) -> Any:
        told = self.behaviour()
        (tensor,) = request.inputs
        rows, size = tensor.shape[0], told.get("size", 1)
        datatype = told.get("datatype", "FP32")
        if told.get("away") or told.get("loading"):
            context.abort(STATUS.UNAVAILABLE, "the model is not available")
        if told.get("unloaded"):
            context.abort(STATUS.NOT_FOUND, "Request for unknown model: 'm' is not found")
        if told.get("busy"):
            context.abort(STATUS.RESOURCE_EXHAUSTED, "all batch threads are busy")
        if tensor.datatype != datatype or list(tensor.shape[1:]) != [size]:
            context.abort(STATUS.INVALID_ARGUMENT, f"unexpected {tensor.datatype} {list(tensor.shape)} for input 'x'")
        if rows > told.get("most_rows", rows):
            context.abort(
                STATUS.INVALID_ARGUMENT, f"inference request batch-size must be <= {told['most_rows']} for 'm'"
            )
        x = np.frombuffer(request.raw_input_contents[0], dtype_of(datatype)).reshape(rows, size)
        if told.get("refuse") in x:
            context.abort(STATUS.INVALID_ARGUMENT, f"the value {told['refuse']:g} is out of range")
        time.sleep(told.get("run_s", 0.0))
        y = 2 * x[: rows - 1 if told.get("lie") else rows]
        answer = oip.ModelInferResponse(model_name="m", model_version=told.get("version", "1"), id=request.id)
        answer.outputs.add(name="y", datatype=datatype, shape=y.shape)
        answer.raw_output_contents.append(y.tobytes())
        return answer

    def metadata(self, request: Any, context: Any) -> Any:
        told = self.behaviour()
        if told.get("away"):
            context.abort(STATUS.UNAVAILABLE, "the model is not available")
        if told.get("unloaded"):
            context.abort(STATUS.NOT_FOUND, "Request for unknown model: 'm' is not found")
        answer = oip.ModelMetadataResponse(name="m", versions=[told.get("version", "1")])
        for tensors, name in ((answer.inputs, "x"), (answer.outputs, "y")):
            tensors.add(name=name, datatype=told.get("datatype", "FP32"), shape=[-1, told.get("size", 1)])
        return answer

    def ready(self, request: Any, context: Any) -> Any:
        told = self.behaviour()
        return oip.ModelReadyResponse(ready=not any(told.get(name) for name in ("loading", "away", "unloaded")))


def serve(port: int, folder: Path) -> None:
    peer = Peer(folder)
    methods: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
        "ModelInfer": (peer.infer, oip.ModelInferRequest),
        "ModelMetadata": (peer.metadata, oip.ModelMetadataRequest),
        "ModelReady": (peer.ready, oip.ModelReadyRequest),
    }
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(
            run, request_deserializer=kind.FromString, response_serializer=lambda answer: answer.SerializeToString()
        )
        for name, (run, kind) in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    partial = folder / f"port.{os.getpid()}"
    partial.write_text(str(bound))
    partial.replace(folder / "port")
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
