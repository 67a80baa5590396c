"""`/v2/requests/ID`: requests by id, while they wait and when they have ended."""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from headrace.contracts.states import PENDING, State
from headrace.contracts.tensors.oip_http import JSON_LENGTH
from headrace.gateway.http.problem import KINDS, TYPE_PREFIX
from headrace.gateway.http.refusal import HttpRefusal
from headrace.gateway.inference.failure import Failure
from headrace.gateway.inference.tracking import Tracked
from headrace.gateway.oip.answer import Identity, write_answer
from headrace.gateway.oip.errors import NotInJson
from headrace.gateway.oip.parameters import NONFINITE
from headrace.gateway.routes.answering import gateway_of, handler, json_response, request_headers, request_path


def resource(tracked: Tracked, root: str) -> dict[str, Any]:
    """Return a request as clients see it, without its answer. root: what stands in front of all paths."""
    path = request_path(tracked.id, root)
    found: dict[str, Any] = {
        "id": tracked.id,
        "model": tracked.model,
        "model_version": tracked.version or None,
        "state": tracked.state,
        "submitted_at": _time(tracked.submitted_at),
    }
    row = tracked.row
    if row is not None:
        found["started_at"] = None if row.started_at is None else row.started_at.isoformat()
        found["finished_at"] = row.finished_at.isoformat()
        found["batch_rows"] = row.batch_rows
        found["worker"] = row.worker
    if tracked.failure is not None:
        found["error"] = _error(tracked.failure)
    # Clients take these as they are, instead of building them.
    found["urls"] = {"self": path} | ({"cancel": path} if tracked.state == PENDING else {})
    return found


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()


def _error(failure: Failure) -> dict[str, Any]:
    status, title = KINDS[failure.kind]
    return {"type": TYPE_PREFIX + failure.kind, "title": title, "status": status, "detail": failure.message}


@handler
async def show(request: Request) -> Response:
    """Return a request: its state, and its answer when there is one.

    `?wait=SECONDS` waits for its end. `?nonfinite=null|literal` says how NaN and infinity are written.
    `?binary_data_output=true` returns the answer alone, its outputs as bytes.
    """
    gateway = gateway_of(request)
    nonfinite = request.query_params.get("nonfinite", "refuse")
    if nonfinite not in NONFINITE:
        raise HttpRefusal("invalid-request", f"nonfinite must be one of {', '.join(NONFINITE)}", field="?nonfinite")
    wait_s = min(_seconds(request.query_params.get("wait", "0")), gateway.settings.gateway_wait_s)
    tracked = await gateway.tracking.find(request.path_params["id"], wait_s)
    root = request.scope.get("root_path", "")
    if tracked.state == State.SUCCEEDED and request.query_params.get("binary_data_output") == "true":
        return _bytes(tracked, root)
    return _shown(tracked, root, nonfinite)


@handler
async def cancel(request: Request) -> Response:
    """Cancel a request, and return it as it is then: what has ended stays as it ended."""
    tracked = await gateway_of(request).tracking.cancel(request.path_params["id"])
    return json_response(resource(tracked, request.scope.get("root_path", "")))


def _shown(tracked: Tracked, root: str, nonfinite: str) -> Response:
    found = resource(tracked, root)
    if not tracked.ended:
        return json_response(found, headers={"Retry-After": "1"})
    if tracked.row is None or tracked.row.outputs is None:
        return json_response(found)
    try:
        written = write_answer(_identity(tracked), tracked.row.outputs, lambda _: False, nonfinite)
    except NotInJson as exc:
        raise NotInJson(f"{exc.message}; here, ?nonfinite=null or ?binary_data_output=true", exc.field) from None
    body = orjson.dumps(found)[:-1] + b',"answer":' + written.body + b"}"
    return Response(body, 200, None, "application/json")


def _bytes(tracked: Tracked, root: str) -> Response:
    outputs = (tracked.row.outputs if tracked.row else None) or {}
    written = write_answer(_identity(tracked), outputs, lambda _: True, "refuse")
    headers = request_headers(tracked.id, root)
    if written.json_bytes is not None:
        headers[JSON_LENGTH] = str(written.json_bytes)
    return Response(written.body, 200, headers, "application/octet-stream")


def _identity(tracked: Tracked) -> Identity:
    return Identity(tracked.model, tracked.version, tracked.id)


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HttpRefusal("invalid-request", "wait must be a whole number of seconds", field="?wait")
    return float(text)
