"""Health and description of the server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from headrace.gateway.http.problem import problem
from headrace.gateway.inference.failure import Failure, Kind
from headrace.gateway.inference.gateway import installed_version
from headrace.gateway.oip.description import server_metadata
from headrace.gateway.routes.answering import gateway_of, handler, json_response


@handler
async def live(request: Request) -> Response:  # noqa: ARG001 — the form of a handler
    """Return 200 while the process answers at all. Clients differ in what they look at: the status or `live`."""
    return json_response({"live": True})


@handler
async def ready(request: Request) -> Response:
    """Return 200 while the broker answers and the gateway is not shutting down."""
    gateway = gateway_of(request)
    if gateway.inference.draining:
        raise Failure(Kind.DRAINING, "the gateway is shutting down")
    await gateway.ping()
    return json_response({"ready": True, "live": True})


@handler
async def server(request: Request) -> Response:  # noqa: ARG001 — the form of a handler
    """Return name, version and extensions of the server."""
    return json_response(server_metadata(installed_version()))


@handler
async def unsupported(request: Request) -> Response:
    """Refuse what clients of Triton may ask for and headrace has not."""
    path = request.url.path
    what = "shared memory" if "sharedmemory" in path else "settings of tracing and logging over HTTP"
    if "/repository/models/" in path:
        what = "loading of models over HTTP; workers load what their model directory holds (`headrace models add`)"
    return problem("not-supported", f"headrace has no {what}")
