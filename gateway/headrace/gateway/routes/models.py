"""Models: the list of them, their descriptions, and whether they are ready."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from headrace.contracts.errors import UnknownModel
from headrace.gateway.http.body import Limits, read_body
from headrace.gateway.http.refusal import HttpRefusal
from headrace.gateway.inference import repository
from headrace.gateway.inference.models import Description
from headrace.gateway.oip.description import example_curl, model_config, model_metadata
from headrace.gateway.routes.answering import base_path, gateway_of, handler, json_response


@handler
async def listing(request: Request) -> Response:
    """Return every model with its versions, whether it is ready, its address, and a call that works."""
    models = [await _listed(request, name) for name in await gateway_of(request).models.names()]
    return json_response({"models": [each for each in models if each is not None]})


async def _listed(request: Request, name: str) -> dict[str, Any] | None:
    try:
        found = await gateway_of(request).models.describe(name)
    except UnknownModel:
        return None  # it went away meanwhile
    # Not `base_url`, which leaves out where the gateway is mounted.
    root = base_path(request.scope.get("root_path", ""))
    url = f"{request.url.scheme}://{request.url.netloc}{root}/v2/models/{quote(name)}"
    entry: dict[str, Any] = {
        "name": name,
        "versions": list(found.versions),
        "version": found.version,
        "ready": found.ready,
        "url": f"{url}/infer",
    }
    if not found.ready:
        entry["reason"] = found.reason
    if curl := example_curl(f"{url}/infer", found.signature):
        entry["example"] = curl
    return entry


@handler
async def metadata(request: Request) -> Response:
    """Return a model's versions, inputs and outputs."""
    found = await _described(request)
    return json_response(model_metadata(found.name, found.versions, found.platform, found.signature, found.labels))


@handler
async def ready(request: Request) -> Response:
    """Return 200 while workers serve the model and get answers of it."""
    found = await _described(request)
    found.check_ready()
    return json_response({"name": found.name, "ready": True})


@handler
async def config(request: Request) -> Response:
    """Return a model as Triton's configuration has it."""
    found = await _described(request)
    return json_response(model_config(found.name, found.versions, found.platform, found.signature, found.max_rows))


@handler
async def statistics(request: Request) -> Response:
    """Return counts and times of a model's versions, or of one version, since this process began."""
    gateway, path = gateway_of(request), request.path_params
    stats = await repository.statistics_of(gateway.models, gateway.statistics, path["model"], path.get("version", ""))
    return json_response({"model_stats": stats})


@handler
async def all_statistics(request: Request) -> Response:
    """Return counts and times of every version of every model, since this process began."""
    gateway = gateway_of(request)
    return json_response({"model_stats": await repository.all_statistics(gateway.models, gateway.statistics)})


@handler
async def repository_index(request: Request) -> Response:
    """Return every version of every model and its state."""
    only_ready = await _wants_ready(request)
    return json_response(await repository.repository_index(gateway_of(request).models, only_ready=only_ready))


async def _wants_ready(request: Request) -> bool:
    limits = Limits(gateway_of(request).settings.gateway_body_bytes)
    headers = request.headers
    body = await read_body(request.receive, headers.get("content-length"), headers.get("content-encoding", ""), limits)
    if not body.strip():
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise HttpRefusal("invalid-request", f"the body is not JSON: {exc}") from None
    ready = document.get("ready", False) if isinstance(document, dict) else None
    if not isinstance(ready, bool):
        raise HttpRefusal("invalid-request", 'the body must be {"ready": true} or {"ready": false}', field="ready")
    return ready


async def _described(request: Request) -> Description:
    path = request.path_params
    return await gateway_of(request).models.describe(path["model"], path.get("version", ""))
