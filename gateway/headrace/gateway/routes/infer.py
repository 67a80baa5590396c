"""`POST /v2/models/MODEL[/versions/VERSION]/infer`: the hot route, without a framework between socket and queue."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.contracts.errors import HeadraceError
from headrace.contracts.tensors.oip_http import JSON_LENGTH
from headrace.gateway.http.body import ClientGone, Limits, read_body
from headrace.gateway.http.coding import accepted, encoded, in_thread
from headrace.gateway.http.leaving import Leaving
from headrace.gateway.http.prefer import Preferences, read_prefer
from headrace.gateway.inference.failure import Failure, Kind, input_named
from headrace.gateway.inference.gateway import Gateway, Opening
from headrace.gateway.inference.interruption import Interruptible
from headrace.gateway.inference.question import Answer, Question
from headrace.gateway.oip.answer import Identity, Written, asked_for, chosen_outputs, refuse_binary_only, write_answer
from headrace.gateway.oip.request import InferRequest, read_request
from headrace.gateway.routes.answering import answered, failed, json_response, request_headers
from headrace.gateway.routes.tracked import resource
from headrace.producers import AsyncHandle

_JSON_LENGTH: Final = JSON_LENGTH.lower().encode()

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"


class InferRoute:
    """The route as an ASGI application of its own."""

    def __init__(self, opening: Opening) -> None:
        """opening: the way to the gateway."""
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        root: str = scope.get("root_path", "")
        response = await answered(self._respond(scope, receive, root), root)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, root: str) -> Response:
        gateway = self._opening.open()
        # Names are in lower case; only Prefer may rightly be there more than once.
        headers: dict[bytes, bytes] = dict(scope["headers"])
        limits = Limits(gateway.settings.gateway_body_bytes)
        coding = headers.get(b"content-encoding", b"").decode("latin-1")
        body = await read_body(receive, _text(headers.get(b"content-length")), coding, limits)
        request = await in_thread(read_request, body, _text(headers.get(_JSON_LENGTH)))
        path = scope["path_params"]
        exchange = Exchange(gateway, request, path["model"], path.get("version", ""), root)
        if b"prefer" in headers:
            prefer = read_prefer(value.decode("latin-1") for name, value in scope["headers"] if name == b"prefer")
            if prefer.respond_async:
                return await exchange.answer_later(receive, prefer)
        return await exchange.answer_now(receive, headers.get(b"accept-encoding", b"").decode("latin-1"))


class Exchange:
    """One request and its answer."""

    def __init__(self, gateway: Gateway, request: InferRequest, model: str, version: str, root: str) -> None:
        """root: what stands in front of all paths."""
        self._gateway = gateway
        self._inference = gateway.inference
        self._request = request
        self._model = model
        self._version = version
        self._root = root

    async def answer_now(self, receive: Receive, accept_encoding: str) -> Response:
        """Return the answer when it is there; cancel the request if the client leaves before."""
        longest_s = self._gateway.settings.gateway_wait_s
        wait_s = min(self._request.parameters.timeout_s or longest_s, longest_s)
        question = self._question(wait_s)
        handle = await self._submit(question)
        waiting = Interruptible()
        try:
            with Leaving(receive, lambda: waiting.interrupt(ClientGone())):
                answer = await self._inference.answer(handle, question, wait_s, waiting)
        except ClientGone:
            self._inference.cancel_later(handle)
            raise
        except Failure as exc:
            return self._failed(exc)
        return await self._answered(answer, accept_encoding)

    async def answer_later(self, receive: Receive, prefer: Preferences) -> Response:
        """Return where the answer will be, or the answer if it comes within the time that the client waits."""
        question = self._question(self._request.parameters.timeout_s)
        handle = await self._submit(question)
        tracked = await self._gateway.tracking.follow(handle, question)
        applied = {"Preference-Applied": prefer.applied}
        wait_s = min(prefer.wait_s or 0, self._gateway.settings.gateway_wait_s)
        if wait_s and await self._wait(handle, receive, wait_s):
            try:
                answer = await self._inference.answer(handle, question, 0, Interruptible())
                response = await self._answered(answer, "")
            except Failure as exc:
                response = self._failed(exc)
            response.headers.update(applied)
            return response
        headers = request_headers(handle.id, self._root) | applied
        return json_response(resource(tracked, self._root), 202, headers)

    async def _wait(self, handle: AsyncHandle, receive: Receive, wait_s: float) -> bool:
        """Wait for the end of a request that goes on if the client leaves."""
        waiting = Interruptible()
        with Leaving(receive, lambda: waiting.interrupt(ClientGone())):
            return await self._inference.wait(handle, wait_s, waiting)

    def _question(self, deadline_s: float | None) -> Question:
        return Question(
            model=self._model,
            version=self._version,
            inputs=self._request.inputs,
            deadline_s=deadline_s,
            priority=self._request.parameters.priority,
        )

    async def _submit(self, question: Question) -> AsyncHandle:
        try:
            await self._refuse_in_vain()
            return await self._inference.submit(question)
        except Failure as exc:
            exc.field = self._field(exc)
            raise

    async def _refuse_in_vain(self) -> None:
        """Refuse before any work what could not be answered: outputs that the model has not, or that no JSON holds."""
        signature = await self._gateway.models.signature(self._model, self._version)
        if signature is None:
            return
        for name, datatype in asked_for(self._request, signature, self._model).items():
            if not self._request.is_binary(name):
                refuse_binary_only(name, datatype)

    async def _answered(self, answer: Answer, accept_encoding: str) -> Response:
        try:
            written = self._write(answer)
        except HeadraceError as exc:
            exc.request_id = answer.id
            raise
        headers = request_headers(answer.id, self._root)
        if written.json_bytes is not None:
            headers[JSON_LENGTH] = str(written.json_bytes)
        coding = accepted(accept_encoding) if accept_encoding else ""
        packed = await in_thread(encoded, written.body, coding)
        if packed is not None:
            headers["Content-Encoding"] = coding
            headers["Vary"] = "Accept-Encoding"
        body = written.body if packed is None else packed
        return Response(body, 200, headers, _JSON if written.json_bytes is None else _BINARY)

    def _write(self, answer: Answer) -> Written:
        request = self._request
        identity = Identity(self._model, answer.version, request.id or answer.id)
        outputs = chosen_outputs(answer.outputs, request)
        return write_answer(identity, outputs, request.is_binary, request.parameters.nonfinite)

    def _failed(self, error: Failure) -> Response:
        return failed(error, self._field(error), self._root)

    def _field(self, error: Failure) -> str:
        if error.kind is not Kind.INPUT:
            return ""
        names = list(self._request.inputs)
        name = input_named(error.message, names)
        return f"inputs[{names.index(name)}]" if name else "inputs"


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")
