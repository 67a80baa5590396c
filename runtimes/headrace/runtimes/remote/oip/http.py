"""Servers of the Open Inference Protocol over HTTP: Triton, KServe, MLServer, OpenVINO Model Server."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from headrace.contracts.errors import PackageError
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import (
    Access,
    Address,
    Answer,
    BadAnswer,
    Misconfigured,
    RemoteSignature,
    ServerAway,
    ServerBusy,
)
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.oip.http_codec import JSON_LENGTH, Question, read_answer, split, write_binary, write_json
from headrace.runtimes.remote.transport.http_client import MAX_ANSWER_BYTES, HttpClient
from headrace.runtimes.remote.transport.http_reply import Reply, hidden_failure

_BINARY: Final = "binary_tensor_data"
_TIME_LIMIT: Final = "schedule_policy"
_CONFIG: Final = "model_configuration"

#: The first version of KServe's Python server that takes binary tensors; it doesn't list the extension.
_KSERVE_BINARY: Final = (0, 14)


class _Server(msgspec.Struct):
    """What a server tells of itself."""

    name: str = ""
    version: str = ""
    extensions: list[str] = []

    @property
    def takes_binary(self) -> bool:
        """Whether binary tensors may be sent."""
        if self.name == "kserve":
            return tuple(map(int, re.findall(r"\d+", self.version)[:2])) >= _KSERVE_BINARY
        return _BINARY in self.extensions


class _TensorMetadata(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _ModelMetadata(msgspec.Struct):
    inputs: list[_TensorMetadata] | None = None
    outputs: list[_TensorMetadata] | None = None
    versions: list[str] | None = None
    platform: str | None = None


class OipHttp:
    """One endpoint of one model; a `Connection`."""

    def __init__(
        self,
        address: Address,
        model: str,
        *,
        access: Access,
        version: str = "",
        max_message_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """version: of the model on the server; without it the server chooses."""
        self._client = HttpClient(address, access, max_message_bytes)
        self._where = f"{model} at {address}"
        self._model = model
        self._version = version
        self._path = f"/v2/models/{quote(model)}"
        self._version_path = f"/versions/{quote(version)}" if version else ""
        self._server: _Server | None = None

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch; see `Connection`."""
        ends_at = time.monotonic() + timeout_s
        try:
            server = self._ask_server(timeout_s)
            left_s = ends_at - time.monotonic()
            # Triton ends a batch that waits in its own queue for longer.
            limit = {"timeout": max(int(left_s * 1_000_000), 1)} if _TIME_LIMIT in server.extensions else {}
            question = Question(request_id=uuid.uuid4().hex, inputs=inputs, outputs=outputs, parameters=limit)
            written = write_binary(question) if server.takes_binary else write_json(question)
            reply = self._call("POST", "/infer", ends_at, written.body, written.headers)
        except ServerBusy:
            raise
        except ServerAway:
            # Another server may come up at the same address.
            self._server = None
            raise
        document, binary = split(reply.body, reply.headers.get(JSON_LENGTH.lower()))
        if trouble := hidden_failure(document, self._where):
            raise trouble
        answer = read_answer(document, binary, question)
        if self._version and answer.version not in ("", self._version):
            raise Misconfigured(f"{self._where}: version {answer.version} answers, not {self._version}")
        return answer

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors; see `Connection`. A server that doesn't know them names none."""
        ends_at = time.monotonic() + timeout_s
        server = self._ask_server(timeout_s)
        reply = self._call("GET", "", ends_at)
        try:
            metadata = msgspec.convert(reply.document(), _ModelMetadata)
        except msgspec.ValidationError as exc:
            raise BadAnswer(f"{self._where}: its description can't be read: {exc}") from None
        try:
            found = signature_of(_described(metadata.inputs), _described(metadata.outputs))
        except PackageError as exc:
            raise PackageError(f"{self._where}: {exc.message}") from None
        most = found.max_rows or (self._max_batch_size(ends_at) if _CONFIG in server.extensions else 0)
        version = self._version or (metadata.versions or [""])[-1]
        return msgspec.structs.replace(found, max_rows=most, version=version, platform=metadata.platform or server.name)

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if the model doesn't answer."""
        reply = self._send("GET", "/ready", time.monotonic() + timeout_s)
        if reply.status == HTTPStatus.BAD_REQUEST:
            # Triton's answer for a model that is not ready.
            raise ServerAway(f"{self._where} is not ready")
        self._client.succeed(reply, self._model)
        # Some servers have nothing in the body, others {"ready": false} in a success.
        if bytes(reply.body).strip() and reply.document().get("ready") is False:
            raise ServerAway(f"{self._where} is not ready")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask_server(self, timeout_s: float) -> _Server:
        if self._server is None:
            reply = self._client.call("GET", "/v2", timeout_s)
            if reply.status in (HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED):
                self._server = _Server()
            else:
                self._server = _read_server(self._client.succeed(reply, self._model).document())
        return self._server

    def _max_batch_size(self, ends_at: float) -> int:
        size = self._call("GET", "/config", ends_at).document().get("max_batch_size")
        return size if isinstance(size, int) and size > 0 else 0

    def _call(self, method: str, tail: str, ends_at: float, body: Sequence[Any] = (), headers: Any = None) -> Reply:
        return self._client.succeed(self._send(method, tail, ends_at, body, headers), self._model)

    def _send(self, method: str, tail: str, ends_at: float, body: Sequence[Any] = (), headers: Any = None) -> Reply:
        left_s = ends_at - time.monotonic()
        reply = self._client.call(method, self._path + self._version_path + tail, left_s, body, headers)
        if self._version_path and _has_no_versions(reply):
            self._version_path = ""
            return self._send(method, tail, ends_at, body, headers)
        return reply


def _has_no_versions(reply: Reply) -> bool:
    """Return whether a server doesn't know paths with a version, rather than that version of the model."""
    if reply.status == HTTPStatus.NOT_IMPLEMENTED:
        return True
    if reply.status != HTTPStatus.NOT_FOUND:
        return False
    try:
        document = reply.document()
    except BadAnswer:
        return True
    # FastAPI's answer for a path without a handler.
    return document == {"detail": "Not Found"}


def _read_server(document: dict[str, Any]) -> _Server:
    try:
        return msgspec.convert(document, _Server)
    except msgspec.ValidationError:
        # OpenVINO Model Server and others leave fields out or null; without extensions JSON is what every server takes.
        return _Server(name=str(document.get("name", "")))


def _described(tensors: Sequence[_TensorMetadata] | None) -> list[Described]:
    return [Described(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors or ()]
