"""Servers of the Open Inference Protocol over HTTP: Triton, KServe, MLServer, OpenVINO Model Server, TorchServe."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from headrace.contracts.errors import PackageError
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.oip_http import JSON_LENGTH
from headrace.runtimes.remote.base import (
    Access,
    Address,
    Answer,
    BadAnswer,
    Misconfigured,
    ModelNotReady,
    Refused,
    RemoteSignature,
    ServerAway,
    ServerBusy,
    placed,
)
from headrace.runtimes.remote.oip.http_codec import (
    NOTHING,
    Question,
    Written,
    read_answer,
    split,
    write_binary,
    write_json,
)
from headrace.runtimes.remote.oip.http_metadata import Server, is_unknown_path, read_model, read_server
from headrace.runtimes.remote.oip.repetition import Repetition
from headrace.runtimes.remote.transport.http_client import HttpClient, succeed
from headrace.runtimes.remote.transport.http_reply import Reply, hidden_failure
from headrace.runtimes.remote.transport.server_text import NotFound


class OipHttp:
    """A `Connection`."""

    def __init__(
        self, address: Address, model: str, *, access: Access, version: str = "", torchserve: bool = False
    ) -> None:
        """Open nothing yet.

        version: "" is the server's choice. torchserve: whether it runs the model, behind a server of KServe's: it has
        no batches over HTTP itself.
        """
        self._client = HttpClient(address, access)
        self._where = f"{model} at {address}"
        self._torchserve = torchserve
        self._repetition = Repetition(self._where)
        self._version = version
        self._path = f"/v2/models/{quote(model)}"
        #: "" also on a server that has no such paths.
        self._version_path = f"/versions/{quote(version, safe='')}" if version else ""
        self._server: Server | None = None

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch. Raises what `Connection.infer` does."""
        ends_at = time.monotonic() + timeout_s
        try:
            return self._infer_again(inputs, outputs, ends_at)
        except NotFound as exc:
            self.check_ready(ends_at - time.monotonic())
            raise exc.when_ready() from None
        except BadAnswer as exc:
            raise placed(exc, self._where) from None
        except ServerBusy:
            raise
        except ServerAway:
            # Another server may come up at the same address.
            self._server = None
            raise

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Ask for the model's tensors; of a server that doesn't know them, there are none."""
        ends_at = time.monotonic() + timeout_s
        server = self._known_server(ends_at)
        reply = self._send("GET", "", ends_at)
        if is_unknown_path(reply) and reply.holds_document:
            return RemoteSignature(inputs=(), outputs=(), platform=server.name)
        succeed(reply, self._where)
        try:
            found = read_model(reply)
            most_rows = found.max_rows or (self._most_rows(ends_at) if server.shows_config else 0)
        except (PackageError, BadAnswer) as exc:
            raise placed(exc, self._where) from None
        version, platform = self._version if self._version_path else found.version, found.platform or server.name
        return msgspec.structs.replace(found, max_rows=most_rows, version=version, platform=platform)

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if the model is not ready."""
        ends_at = time.monotonic() + timeout_s
        reply = self._send("GET", "/ready", ends_at)
        if is_unknown_path(reply):
            # TorchServe can't tell; it is there. An ingress without a backend isn't.
            if not reply.holds_document:
                self._call("GET", "", ends_at)
            return
        if reply.status == HTTPStatus.BAD_REQUEST:
            # Triton says no more of a model that it doesn't have.
            self._call("GET", "", ends_at)
            raise ModelNotReady(f"{self._where}: the model is not ready")
        succeed(reply, self._where)
        # Some servers have nothing in the body, others {"ready": false} in a success.
        if bytes(reply.body).strip() and reply.document().get("ready") is False:
            raise ModelNotReady(f"{self._where}: the model is not ready")

    def reopen(self) -> None:
        """Make the next call over a new connection."""
        self._client.reopen()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _infer_again(self, inputs: Tensors, outputs: Sequence[str], ends_at: float) -> Answer:
        """Run a batch, once more where it may have been refused for the values of another."""
        try:
            return self._infer(inputs, outputs, ends_at)
        except Refused:
            if not self._torchserve:
                raise
        return self._repetition.alone(lambda: self._infer(inputs, outputs, ends_at), ends_at)

    def _infer(self, inputs: Tensors, outputs: Sequence[str], ends_at: float) -> Answer:
        server = self._known_server(ends_at)
        limit_us = max(int((ends_at - time.monotonic()) * 1_000_000), 1)
        question = Question(
            request_id=uuid.uuid4().hex,
            inputs=inputs,
            outputs=outputs,
            parameters={"timeout": limit_us} if server.takes_time_limit else {},
        )
        written = write_binary(question) if server.takes_binary else write_json(question)
        reply = self._call("POST", "/infer", ends_at, written)
        document, binary = split(reply.body, reply.headers.get(JSON_LENGTH.lower()))
        if hidden := hidden_failure(document, self._where):
            raise hidden
        answer = read_answer(document, binary, question)
        if self._version and answer.version not in ("", self._version):
            raise Misconfigured(f"{self._where}: version {answer.version} answers, not {self._version}")
        return answer

    def _known_server(self, ends_at: float) -> Server:
        server = self._server
        if server is None:
            reply = self._client.call("GET", "/v2", ends_at - time.monotonic())
            if not is_unknown_path(reply) and reply.status != HTTPStatus.METHOD_NOT_ALLOWED:
                succeed(reply, self._where)
            server = self._server = read_server(reply)
        return server

    def _most_rows(self, ends_at: float) -> int:
        size = self._call("GET", "/config", ends_at).document().get("max_batch_size")
        return size if isinstance(size, int) and size > 0 else 0

    def _call(self, method: str, tail: str, ends_at: float, written: Written = NOTHING) -> Reply:
        return succeed(self._send(method, tail, ends_at, written), self._where)

    def _send(self, method: str, tail: str, ends_at: float, written: Written = NOTHING) -> Reply:
        """Call for the version, or without it on a server whose paths have none (KServe's)."""
        if self._version_path:
            reply = self._send_to(self._path + self._version_path + tail, method, ends_at, written)
            if not is_unknown_path(reply):
                return reply
        reply = self._send_to(self._path + tail, method, ends_at, written)
        if not is_unknown_path(reply):
            self._version_path = ""
        elif not reply.holds_document:
            # What answers in place of the server said nothing of it at /v2 either.
            self._server = None
        return reply

    def _send_to(self, path: str, method: str, ends_at: float, written: Written) -> Reply:
        return self._client.call(method, path, ends_at - time.monotonic(), written.body, written.headers)
