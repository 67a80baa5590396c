"""A connection to a server in this process, that does what a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from headrace.contracts import TensorSpec
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.server import Server
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.base import Unavailable
from headrace.runtimes.remote.base import Answer, NoAnswer, RemoteSignature, ServerAway, ServerBusy
from headrace.runtimes.remote.endpoints.remote_model import RemoteModel

X = TensorSpec(name="x", datatype="FP32", shape=(1,))
Y = TensorSpec(name="y", datatype="FP32", shape=(1,))
SIGNATURE = RemoteSignature(inputs=(X,), outputs=(Y,), version="7")


class Scripted:
    """y = 2·x. error: raised by all calls, if set. answer: in place of the model. run_s: of a batch.

    most: how many batches were in flight at once. mute: whether the connection passes nothing until it is opened anew.
    calls, looks, reopenings: how many batches, looks at the signature and new connections there were.
    """

    def __init__(self, *, run_s: float = 0.0) -> None:
        self.error: Exception | None = None
        self.answer: Callable[[Tensors], Tensors] = lambda inputs: {"y": 2 * inputs["x"]}
        self.tensors = SIGNATURE
        self.version = "7"
        self.run_s = run_s
        self.calls = self.looks = self.reopenings = self.running = self.most = 0
        self.mute = self.closed = False
        self._lock = threading.Lock()

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            self._answer_at_all()
            if self.error is not None:
                raise self.error
            if self.run_s > timeout_s:
                time.sleep(timeout_s)
                raise ServerAway("no answer in time")
            time.sleep(self.run_s)
            return Answer(self.answer(inputs), self.version)
        finally:
            with self._lock:
                self.running -= 1

    def signature(self, timeout_s: float) -> RemoteSignature:
        with self._lock:
            self.looks += 1
        self._answer_at_all()
        if isinstance(self.error, ServerAway) and not isinstance(self.error, ServerBusy):
            raise self.error
        return self.tensors

    def check_ready(self, timeout_s: float) -> None:
        self._answer_at_all()
        if isinstance(self.error, ServerAway) and not isinstance(self.error, ServerBusy):
            raise self.error

    def reopen(self) -> None:
        with self._lock:
            self.reopenings += 1
        self.mute = False

    def _answer_at_all(self) -> None:
        if self.mute:
            raise NoAnswer("no answer in time")

    def close(self) -> None:
        self.closed = True


def remote_model(
    *connections: Scripted, timeout_s: float = 30.0, max_in_flight: int = 0, allow_new_signature: bool = False
) -> RemoteModel:
    named = [(f"server-{number}", connection) for number, connection in enumerate(connections)]
    endpoints = tuple(name for name, _ in named)
    table = Server(endpoints=endpoints, model="m", max_in_flight=max_in_flight, allow_new_signature=allow_new_signature)
    manifest = Manifest(name="m", version="1", runtime="oip", server=table, inputs=(X,), outputs=(Y,))
    return RemoteModel(manifest, table, named, timeout_s)


def rows(count: int = 1) -> Tensors:
    return {"x": np.ones((count, 1), np.float32)}


def works(model: RemoteModel) -> bool:
    """Return whether a batch is answered now, and rightly."""
    try:
        return bool(model.infer(rows())["y"].item() == 2.0)
    except Unavailable:
        return False
