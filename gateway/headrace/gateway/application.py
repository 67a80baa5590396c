"""The gateway as an ASGI application: its paths."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from headrace.contracts.settings import Settings
from headrace.gateway.http.problem import problem
from headrace.gateway.inference.gateway import Opening
from headrace.gateway.oip.schema import completed
from headrace.gateway.routes import health, models, tracked
from headrace.gateway.routes.answering import Handler
from headrace.gateway.routes.infer import InferRoute

_MODEL: Final = "/v2/models/{model}"

#: Every path of a model is there for a version, too.
_OF_MODELS: Final = (_MODEL, _MODEL + "/versions/{version}")

_INFER: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")

#: Path, method, handler, and a line for the OpenAPI document.
_ROUTES: Final[tuple[tuple[str, str, Handler, str], ...]] = (
    ("/v2/health/live", "GET", health.live, "Whether the gateway runs"),
    ("/v2/health/ready", "GET", health.ready, "Whether the gateway takes requests"),
    ("/v2", "GET", health.server, "Name, version and extensions"),
    ("/v2/models", "GET", models.listing, "All models, with a call that works"),
    ("/v2/requests/{id:path}", "GET", tracked.show, "A request, and its answer when there is one"),
    ("/v2/requests/{id:path}", "DELETE", tracked.cancel, "Cancel a request"),
    ("/v2/models/stats", "GET", models.all_statistics, "Counts and times of all models"),
    ("/v2/repository/index", "POST", models.repository_index, "All versions of all models"),
    *((path, "GET", models.metadata, "Versions, inputs and outputs of a model") for path in _OF_MODELS),
    *((path + "/ready", "GET", models.ready, "Whether a model gets answers") for path in _OF_MODELS),
    *((path + "/stats", "GET", models.statistics, "Counts and times of a model") for path in _OF_MODELS),
    *((path + "/config", "GET", models.config, "A model's configuration") for path in _OF_MODELS),
)

#: Paths of Triton's extensions that headrace has nothing for; they answer 501 with the reason.
_UNSUPPORTED: Final = (
    *(path + "/trace/setting" for path in _OF_MODELS),
    "/v2/repository/models/{model}/load",
    "/v2/repository/models/{model}/unload",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
    "/v2/systemsharedmemory",
    "/v2/cudasharedmemory",
)


class GatewayApp(FastAPI):
    """The application: FastAPI for all paths but the one that is hot, which passes its layers by."""

    infer: InferRoute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _INFER.fullmatch(_own_path(scope))
            if found:
                model, version = found.groups(default="")
                await self.infer({**scope, "path_params": {"model": model, "version": version}}, receive, send)
                return
        await super().__call__(scope, receive, send)


def _own_path(scope: Scope) -> str:
    """Return the path of a request without what the gateway is mounted below."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def create_app(settings: Settings | None = None) -> GatewayApp:
    """Return a gateway as an ASGI application. Nothing is connected before the first request, or `lifespan`.

    settings: by default from HEADRACE_* variables, or the running local stack, when they are first needed.
    """
    opening = Opening(settings)
    app = GatewayApp(
        title="headrace gateway",
        description="The Open Inference Protocol v2 over a queue; every answer is a row in Postgres.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.opening = opening
    app.infer = InferRoute(opening)
    for path in _OF_MODELS:
        # For the answer to other methods.
        app.router.routes.append(Route(path + "/infer", app.infer, methods=["POST"], include_in_schema=False))
    app.add_route("/v2/", health.server, methods=["GET"], include_in_schema=False)
    for path in _UNSUPPORTED:
        app.add_route(path, health.unsupported, methods=["GET", "POST"], include_in_schema=False)
    for path, method, function, summary in _ROUTES:
        app.add_api_route(path, function, methods=[method], summary=summary, response_model=None)
    app.add_exception_handler(HTTPException, _http_error)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the gateway of an application, and close it at the end.

    An application that is mounted in another has no start and end of its own: call this in those of the other.
    """
    opening: Opening = app.state.opening
    opening.open()
    try:
        yield
    finally:
        await opening.close()


async def _http_error(request: Request, error: Exception) -> Response:
    """Turn the framework's own errors into problems."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return problem("too-large", "the body is larger than the application around the gateway allows")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods_of(request))
        detail = f"{request.url.path} does not take {request.method}; it takes {allowed}"
        return problem("wrong-method", detail, headers={"Allow": allowed})
    return problem("unknown-path", f"Not Found: there is no path {request.url.path}; GET /v2/models lists the models")


def _methods_of(request: Request) -> list[str]:
    """Return the methods that a path takes; each has a route of its own, and the framework names those of the first."""
    found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()})


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        app.openapi_schema = completed(document, [path + "/infer" for path in _OF_MODELS])
    return app.openapi_schema
