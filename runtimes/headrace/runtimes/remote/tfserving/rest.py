"""TensorFlow Serving over REST: a fallback where its gRPC port can't be reached; floats travel as decimals.

Answers don't name their version or datatypes, so these come from the model's description.
Source: https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from headrace.contracts.errors import PackageError, quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import (
    Access,
    Address,
    Answer,
    BadAnswer,
    OtherSignature,
    Refused,
    RemoteSignature,
    placed,
)
from headrace.runtimes.remote.encoding.json_rows import read_columns, read_rows, write_columns, write_rows
from headrace.runtimes.remote.tfserving.rest_metadata import check_status, read_metadata
from headrace.runtimes.remote.transport.http_client import HttpClient, succeed
from headrace.runtimes.remote.transport.http_reply import Reply, hidden_failure
from headrace.runtimes.remote.transport.server_text import NotFound

_JSON: Final = {"Content-Type": "application/json"}


class TfServingRest:
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
        """Open nothing yet. version, label: at most one; "" is the latest version."""
        self._client = HttpClient(address, access)
        self._where = f"{model} at {address}"
        self._signature_name = signature_name
        self._version = version
        chosen = f"/versions/{quote(version)}" if version else f"/labels/{quote(label)}" if label else ""
        self._path = f"/v1/models/{quote(model)}{chosen}"
        self._known: RemoteSignature | None = None
        self._rows_only = False

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch. Raises what `Connection.infer` does."""
        ends_at = time.monotonic() + timeout_s
        try:
            found = self._infer(inputs, ends_at)
        except NotFound as exc:
            self.check_ready(ends_at - time.monotonic())
            raise exc.when_ready() from None
        except BadAnswer as exc:
            raise placed(exc, self._where) from None
        except PackageError as exc:
            raise OtherSignature(f"{self._where}: {exc.message}") from None
        for name in outputs:
            if name not in found:
                raise OtherSignature(f"{self._where}: no output {quoted(name)}; it has {quoted(', '.join(found))}")
        return Answer({name: found[name] for name in outputs or found}, self._version)

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors."""
        ends_at = time.monotonic() + timeout_s
        try:
            return self._ask(ends_at)
        except NotFound:
            self.check_ready(ends_at - time.monotonic())
            raise
        except (PackageError, BadAnswer) as exc:
            raise placed(exc, self._where) from None

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if no version of the model is available."""
        check_status(self._call("GET", self._path, time.monotonic() + timeout_s).document(), self._where)

    def reopen(self) -> None:
        """Make the next call over a new connection."""
        self._client.reopen()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _infer(self, inputs: Tensors, ends_at: float) -> Tensors:
        specs = (self._known or self._ask(ends_at)).outputs
        document = self._predict(inputs, ends_at)
        try:
            return _read(document, specs)
        except BadAnswer:
            # The server may have loaded a version with other outputs since.
            specs_now = self._ask(ends_at).outputs
            if specs_now == specs:
                raise
            return _read(document, specs_now)

    def _ask(self, ends_at: float) -> RemoteSignature:
        reply = self._call("GET", f"{self._path}/metadata", ends_at)
        self._known = read_metadata(reply.document(), self._signature_name)
        return self._known

    def _predict(self, inputs: Tensors, ends_at: float) -> dict[str, Any]:
        rows_only = self._rows_only
        try:
            reply = self._call("POST", f"{self._path}:predict", ends_at, [self._body(inputs)], _JSON)
        except Refused as exc:
            # Servers of KServe's first protocol know the row form alone.
            if rows_only or '"instances"' not in str(exc):
                raise
            self._rows_only = True
            return self._predict(inputs, ends_at)
        document = reply.document()
        if trouble := hidden_failure(document, self._where):
            raise trouble
        return document

    def _body(self, inputs: Tensors) -> bytes:
        head = b'{"signature_name":' + msgspec.json.encode(self._signature_name)
        if self._rows_only:
            return head + b',"instances":[' + b",".join(write_rows(inputs)) + b"]}"
        return head + b',"inputs":' + write_columns(inputs) + b"}"

    def _call(self, method: str, path: str, ends_at: float, body: Sequence[bytes] = (), headers: Any = None) -> Reply:
        reply = self._client.call(method, path, ends_at - time.monotonic(), body, headers)
        return succeed(reply, self._where)


def _read(document: dict[str, Any], specs: Sequence[TensorSpec]) -> Tensors:
    if "outputs" in document:
        return read_columns(document["outputs"], specs)
    if "predictions" in document:
        return read_rows(document["predictions"], specs)
    raise BadAnswer(f"the server's answer has neither outputs nor predictions, but {quoted(list(document))}")
