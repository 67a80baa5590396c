"""Problem details (RFC 9457), with a member `error` for clients of the Open Inference Protocol.

Those show `error` and nothing else; programs look at `type`.
"""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

#: What the `type` of a problem begins with; docs/gateway.md lists them all.
TYPE_PREFIX: Final = "urn:headrace:problem:"

CONTENT_TYPE: Final = "application/problem+json"

#: Kind of problem → status and title.
KINDS: Final[dict[str, tuple[int, str]]] = {
    "invalid-request": (400, "The request is malformed"),
    "foreign-page": (403, "A page of another address sent the request"),
    "unknown-path": (404, "There is no such path"),
    "unknown-model": (404, "There is no such model"),
    "unknown-request": (404, "There is no such request"),
    "wrong-method": (405, "The path does not take this method"),
    "cancelled": (409, "The request was cancelled"),
    "body-timeout": (408, "The body did not arrive in time"),
    "too-large": (413, "The request is too large"),
    "unsupported-encoding": (415, "The content encoding is not known"),
    "invalid-input": (422, "The inputs do not fit the model"),
    "not-in-json": (422, "The answer has no JSON form"),
    "queue-full": (429, "The queue is full"),
    "inference-failed": (500, "The model failed on the request"),
    "configuration": (500, "The gateway is not set up right"),
    "internal": (500, "The gateway failed"),
    "not-supported": (501, "headrace does not have this"),
    "no-worker": (503, "No worker serves the model"),
    "model-unavailable": (503, "The model gets no answers at present"),
    "unavailable": (503, "A server behind the gateway is away"),
    "lost": (503, "The broker lost the request"),
    "draining": (503, "The gateway is shutting down"),
    "deadline": (504, "The deadline passed"),
}


def document(kind: str, status: int, detail: str) -> dict[str, object]:
    """Return the members that every problem has. kind, detail: as of `problem`. status: of the response."""
    _, title = KINDS[kind]
    return {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail, "error": detail}


def problem(
    kind: str,
    detail: str,
    *,
    field: str = "",
    request_id: str = "",
    retry_after_s: float | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a problem as a response. kind: one of KINDS. detail: one line with cause and remedy.

    field: the place in the request's JSON. request_id: of the row. retry_after_s: when to try again.
    """
    status, _ = KINDS[kind]
    body = document(kind, status, detail)
    if field:
        body["field"] = field
    if request_id:
        body["request_id"] = request_id
    sent = dict(headers or {})
    if retry_after_s is not None:
        sent["Retry-After"] = str(max(1, round(retry_after_s)))
    return Response(orjson.dumps(body), status, sent, CONTENT_TYPE)
