"""TorchServe's own REST interface, which has neither batches nor signatures.

A call holds one row, and TorchServe gathers calls into batches itself (`batchSize`, `maxBatchDelay` of the model), so
the rows of a batch are sent side by side. What a row looks like is up to the model's handler; here it is JSON (nested
lists for a single input, else an object of inputs by name), or for a single input of BYTES without further dimensions
the bytes themselves, as `curl -T kitten.jpg` sends them. Answers are read in the same forms.
Models with the service envelope `json` take all rows in one call, as `{"instances": [...]}`.
When a handler raises, TorchServe fails every call that it had gathered, so a refused call is made once more, one such
call at a time.
Source: docs/inference_api.md and ts/torch_handler/request_envelope of https://github.com/pytorch/serve.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Final, Literal
from urllib.parse import quote

import numpy as np

from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import Access, Address, Answer, BadAnswer, Refused, RemoteSignature, placed
from headrace.runtimes.remote.encoding.json_rows import read_columns, read_rows, stacked, write_rows
from headrace.runtimes.remote.encoding.json_values import as_text, read_document
from headrace.runtimes.remote.oip.repetition import Repetition
from headrace.runtimes.remote.transport.http_client import HttpClient, succeed
from headrace.runtimes.remote.transport.http_reply import Reply, hidden_failure

#: Most rows that are under way at the same time: a batch of the server's own usual size, and the next.
ROWS_SIDE_BY_SIDE: Final = 32

_JSON: Final = {"Content-Type": "application/json"}
_BYTES: Final = {"Content-Type": "application/octet-stream"}


class TorchServeRest:
    """A `Connection`."""

    def __init__(  # noqa: PLR0913  # the constructor that all connections share
        self,
        address: Address,
        model: str,
        *,
        access: Access,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        version: str = "",
        form: Literal["row", "instances"] = "row",
    ) -> None:
        """Open nothing yet.

        inputs, outputs: as the model's package declares them. version: "" is the server's choice. form: what a call
        holds.
        """
        self._client = HttpClient(address, access)
        self._where = f"{model} at {address}"
        self._path = f"/predictions/{quote(model)}" + (f"/{quote(version)}" if version else "")
        self._declared = RemoteSignature(
            inputs=tuple(inputs), outputs=tuple(outputs), version=version, platform="TorchServe"
        )
        self._form = form
        self._repetition = Repetition(self._where)
        #: By process: threads don't outlive a fork.
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def infer(self, inputs: Tensors, outputs: Sequence[str], timeout_s: float) -> Answer:
        """Run a batch; see `Connection`."""
        ends_at = time.monotonic() + timeout_s
        infer = self._infer_all if self._form == "instances" else self._infer_each
        try:
            found = infer(inputs, ends_at)
        except BadAnswer as exc:
            raise placed(exc, self._where) from None
        return Answer({name: found[name] for name in outputs or found}, self._declared.version)

    def signature(self, timeout_s: float) -> RemoteSignature:
        """Return the declared tensors of a model that is there; see `Connection`."""
        self._call("OPTIONS", self._path, time.monotonic() + timeout_s)
        return self._declared

    def check_ready(self, timeout_s: float) -> None:
        """Raise what `infer` raises if the server is not well or doesn't have the model."""
        ends_at = time.monotonic() + timeout_s
        self._call("GET", "/ping", ends_at)
        # Answers with a description; nothing is inferred.
        self._call("OPTIONS", self._path, ends_at)

    def reopen(self) -> None:
        """Make the next call over a new connection."""
        self._client.reopen()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if pool := self._pools.pop(os.getpid(), None):
            pool.shutdown(wait=False, cancel_futures=True)

    def _infer_all(self, inputs: Tensors, ends_at: float) -> Tensors:
        body = b'{"instances":[' + b",".join(write_rows(inputs, as_text)) + b"]}"
        document = self._read(self._predict(body, _JSON, ends_at))
        if not isinstance(document, dict):
            raise BadAnswer(f"the server's answer has no predictions, but {quoted(document)}")
        return read_rows(document.get("predictions"), self._declared.outputs)

    def _infer_each(self, inputs: Tensors, ends_at: float) -> Tensors:
        bodies, headers = _bodies(inputs)
        threads = self._threads()
        calls = [threads.submit(self._infer_row, body, headers, ends_at) for body in bodies]
        wait(calls, return_when=FIRST_EXCEPTION)
        for call in calls:
            call.cancel()
        # No call outlives its batch: the server would gather it with the next.
        done, _ = wait(calls)
        failed = [call for call in calls if call in done and not call.cancelled() and call.exception()]
        return stacked([call.result() for call in failed or calls])

    def _infer_row(self, body: bytes, headers: dict[str, str], ends_at: float) -> Tensors:
        reply = self._predict(body, headers, ends_at)
        (first, *more) = self._declared.outputs
        if first.datatype == "BYTES" and not first.shape and not more:
            # Text that a handler returns isn't wrapped in JSON.
            value = np.empty((), object)
            value[()] = bytes(reply.body)
            return {first.name: value}
        return read_columns(self._read(reply), self._declared.outputs)

    def _predict(self, body: bytes, headers: dict[str, str], ends_at: float) -> Reply:
        try:
            return self._call("POST", self._path, ends_at, [body], headers)
        except Refused:
            return self._repetition.alone(lambda: self._call("POST", self._path, ends_at, [body], headers), ends_at)

    def _read(self, reply: Reply) -> object:
        document: object = read_document(reply.body)
        if isinstance(document, dict) and (hidden := hidden_failure(document, self._where)):
            raise hidden
        return document

    def _call(self, method: str, path: str, ends_at: float, body: Sequence[bytes] = (), headers: Any = None) -> Reply:
        reply = self._client.call(method, path, ends_at - time.monotonic(), body, headers)
        return succeed(reply, self._where)

    def _threads(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if process not in self._pools:
            self._pools.setdefault(process, ThreadPoolExecutor(ROWS_SIDE_BY_SIDE, "torchserve"))
        return self._pools[process]


def _bodies(inputs: Tensors) -> tuple[list[bytes], dict[str, str]]:
    (first, *more) = inputs.values()
    if first.dtype.kind == "O" and first.ndim == 1 and not more:
        return [item.encode() if isinstance(item, str) else item for item in first.tolist()], _BYTES
    return write_rows(inputs, as_text), _JSON
