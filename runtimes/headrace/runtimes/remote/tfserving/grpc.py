"""A model on TensorFlow Serving, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from headrace.contracts.errors import PackageError
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import Access, Address, Answer, BadAnswer, RemoteSignature, placed
from headrace.runtimes.remote.tfserving.calls import Target, check_status, read_answer
from headrace.runtimes.remote.transport.grpc_channel import GrpcChannel
from headrace.runtimes.remote.transport.server_text import NotFound

_PREDICT: Final = "/tensorflow.serving.PredictionService/Predict"
_METADATA: Final = "/tensorflow.serving.PredictionService/GetModelMetadata"
_STATUS: Final = "/tensorflow.serving.ModelService/GetModelStatus"


class TfServingGrpc:
    """A `Connection`."""

    def __init__(
        self,
        address: Address,
        model: str,
        *,
        access: Access,
        signature_name: str = "serving_default",
        version: str = "",
        label: str = "",
    ) -> None:
        """Open nothing yet. version, label: at most one; "" is the latest version.

        Raises PackageError for a version that is no number.
        """
        self._model: Final = model
        self._target: Final = Target(model, signature_name, version, label)
        self._target.spec()
        self._channel: Final = GrpcChannel(address, access)
        self._where: Final = f"{model} at {address}"

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch."""
        ends_at = time.monotonic() + timeout_s
        request = self._target.predict_request(inputs, outputs)
        try:
            return read_answer(self._call(_PREDICT, request, ends_at))
        except NotFound as exc:
            self.check_ready(ends_at - time.monotonic())
            raise exc.when_ready() from None
        except BadAnswer as exc:
            raise placed(exc, self._where) from None

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors."""
        ends_at = time.monotonic() + timeout_s
        try:
            return self._target.read_metadata(
                self._call(_METADATA, self._target.metadata_request(), ends_at), self._where
            )
        except NotFound:
            self.check_ready(ends_at - time.monotonic())
            raise
        except (BadAnswer, PackageError) as exc:
            raise placed(exc, self._where) from None

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if no version of the model is available."""
        ends_at = time.monotonic() + timeout_s
        check_status(self._call(_STATUS, self._target.status_request(), ends_at), self._where)

    def reopen(self) -> None:
        """Make the next call over a new connection."""
        self._channel.reopen()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _call(self, method: str, request: bytes, ends_at: float) -> bytes:
        return self._channel.call(method, request, ends_at - time.monotonic(), self._model)
