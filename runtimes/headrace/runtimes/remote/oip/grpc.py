"""A model on a server of the Open Inference Protocol, over gRPC."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from headrace.contracts.errors import PackageError
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import (
    Access,
    Address,
    Answer,
    BadAnswer,
    ModelNotReady,
    Refused,
    RemoteSignature,
    placed,
)
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.wire import parsed, serialized
from headrace.runtimes.remote.oip.messages import Batch, read_answer, read_metadata
from headrace.runtimes.remote.oip.repetition import Repetition
from headrace.runtimes.remote.transport.grpc_channel import GrpcChannel
from headrace.runtimes.remote.transport.grpc_status import Unimplemented
from headrace.runtimes.remote.transport.server_text import NotFound

#: The package of TorchServe's service, whose messages have other names but the same fields; it takes no raw contents.
TORCHSERVE: Final = "org.pytorch.serve.grpc.openinference"


class OipGrpc:
    """A `Connection`."""

    def __init__(
        self, address: Address, model: str, *, access: Access, version: str = "", service: str = "inference"
    ) -> None:
        """Open nothing yet. version: "" is the server's choice. service: the package of the service's messages."""
        self._model: Final = model
        self._version = version
        self._path: Final = f"/{service}.GRPCInferenceService/"
        self._values_only: Final = service == TORCHSERVE
        self._channel: Final = GrpcChannel(address, access)
        self._where: Final = f"{model} at {address}"
        self._request_ids: Final = itertools.count(1)
        self._repetition: Final = Repetition(self._where)

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch."""
        ends_at = time.monotonic() + timeout_s
        try:
            return self._infer(inputs, outputs, ends_at)
        except NotFound as exc:
            self.check_ready(ends_at - time.monotonic())
            raise exc.when_ready() from None
        except Refused:
            if not self._values_only:
                raise
        return self._repetition.alone(lambda: self._infer(inputs, outputs, ends_at), ends_at)

    def _infer(self, inputs: Tensors, outputs: Sequence[str], ends_at: float) -> Answer:
        # Several servers demand an id. Processes that were forked count from the same number.
        request_id = f"{os.getpid():x}-{next(self._request_ids):x}"

        def request(version: str) -> bytes:
            batch = Batch(self._model, version, request_id, () if self._values_only else outputs)
            return batch.with_values(inputs) if self._values_only else batch.with_raw(inputs)

        answer = self._call_version("ModelInfer", request, ends_at)
        try:
            return read_answer(answer, request_id)
        except BadAnswer as exc:
            raise placed(exc, self._where) from None

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors, and for the most rows of a batch, which Triton knows."""
        ends_at = time.monotonic() + timeout_s
        answer = self._metadata(ends_at)
        try:
            found = read_metadata(answer)
        except (BadAnswer, PackageError) as exc:
            raise placed(exc, self._where) from None
        most_rows = self._most_rows(ends_at)
        return msgspec.structs.replace(found, max_rows=most_rows) if most_rows else found

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if the model is not ready."""
        ends_at = time.monotonic() + timeout_s
        answer = self._call_version(
            "ModelReady", lambda version: serialized(oip.ModelReadyRequest(name=self._model, version=version)), ends_at
        )
        if parsed(oip.ModelReadyResponse, answer).ready:
            return
        # Servers say no more of a model that they don't have.
        self._metadata(ends_at)
        raise ModelNotReady(f"{self._where}: the model is not ready")

    def reopen(self) -> None:
        """Make the next call over a new connection."""
        self._channel.reopen()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _metadata(self, ends_at: float) -> bytes:
        return self._call_version(
            "ModelMetadata",
            lambda version: serialized(oip.ModelMetadataRequest(name=self._model, version=version)),
            ends_at,
        )

    def _most_rows(self, ends_at: float) -> int:
        request = serialized(oip.ModelConfigRequest(name=self._model, version=self._version))
        try:
            answer = self._call("ModelConfig", request, ends_at)
        except Unimplemented:
            return 0
        most_rows: int = parsed(oip.ModelConfigResponse, answer).config.max_batch_size
        return max(most_rows, 0)

    def _call_version(self, method: str, request: Callable[[str], bytes], ends_at: float) -> bytes:
        """Call for the version, or without it on a server that has none (KServe's)."""
        try:
            return self._call(method, request(self._version), ends_at)
        except Unimplemented:
            if not self._version:
                raise
        answer = self._call(method, request(""), ends_at)
        self._version = ""
        return answer

    def _call(self, method: str, request: bytes, ends_at: float) -> bytes:
        return self._channel.call(self._path + method, request, ends_at - time.monotonic(), self._model)
