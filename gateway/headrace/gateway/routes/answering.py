"""Handlers with what every route needs: the gateway, and errors that become problems."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeAlias
from urllib.parse import quote

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headrace.contracts.errors import HeadraceError
from headrace.gateway.http.body import ClientGone
from headrace.gateway.http.problem import problem
from headrace.gateway.http.refusal import HttpRefusal
from headrace.gateway.inference.failure import Failure, failure_of
from headrace.gateway.inference.gateway import Gateway, Opening
from headrace.gateway.oip.errors import MalformedBody, MalformedInput, NotInJson, NotSupported

#: Header with the id of the row.
REQUEST_ID: Final = "Headrace-Request-Id"

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]

_log: Final = logging.getLogger(__name__)


def opening_of(request: Request) -> Opening:
    """Return the way to the gateway of the application that a request came to."""
    found: Opening = request.app.state.opening
    return found


def gateway_of(request: Request) -> Gateway:
    """Return the gateway. Raises ConfigurationError."""
    return opening_of(request).open()


def base_path(scope_root: str) -> str:
    """Return what stands in front of the gateway's own paths, where it is mounted below others."""
    return scope_root.rstrip("/")


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(orjson.dumps(value), status, headers, "application/json")


def request_headers(request_id: str, root: str) -> dict[str, str]:
    """Return the headers by which a client finds a request again. root: what stands in front of all paths."""
    # Ids of other clients may hold anything, line breaks too, which must not get into a header.
    return {REQUEST_ID: quote(request_id, safe=""), "Location": request_path(request_id, root)}


def request_path(request_id: str, root: str) -> str:
    """Return the path of a request. root: what stands in front of all paths."""
    return f"{base_path(root)}/v2/requests/{quote(request_id, safe='')}"


def failed(error: Failure, field: str = "", root: str = "") -> Response:
    """Return a request without an answer as a problem."""
    headers = request_headers(error.request_id, root) if error.request_id else {}
    return problem(
        error.kind,
        error.message,
        field=field,
        request_id=error.request_id,
        retry_after_s=error.retry_after_s,
        headers=headers,
    )


def refused(error: HeadraceError, root: str = "") -> Response:
    """Return an error of headrace as a problem."""
    if isinstance(error, NotSupported):
        return problem("not-supported", error.message, field=error.field)
    if isinstance(error, NotInJson):
        headers = request_headers(error.request_id, root) if error.request_id else {}
        return problem(
            "not-in-json", error.message, field=error.field, request_id=error.request_id or "", headers=headers
        )
    field = error.field if isinstance(error, MalformedBody | MalformedInput) else ""
    return failed(failure_of(error), field, root)


async def answered(answer: Awaitable[Response], root: str) -> Response:
    """Return the response of a handler, or the problem that its error is. Unknown errors are logged, not shown."""
    try:
        return await answer
    except HttpRefusal as exc:
        return exc.response()
    except Failure as exc:
        return failed(exc, exc.field, root)
    except HeadraceError as exc:
        return refused(exc, root)
    except ClientGone:
        # Nobody reads it.
        return Response(status_code=499)
    except HTTPException:
        # Of a host that limits bodies: its own middleware answers.
        raise
    except Exception:  # noqa: BLE001 — the last seam: a client gets a problem, the log the cause
        _log.exception("request_crashed")
        return problem("internal", "the gateway failed on the request; its log has the cause")


def handler(function: Handler) -> Handler:
    """Make a handler whose errors become problems."""

    @wraps(function)
    async def handle(request: Request) -> Response:
        return await answered(function(request), request.scope.get("root_path", ""))

    return handle
