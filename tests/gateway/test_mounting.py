"""The gateway within an application of somebody else, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.gateway.conftest import Served, question

from headrace.contracts.settings import variables_of
from headrace.gateway import create_app, lifespan


def run(app: Callable[..., Awaitable[None]], main: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=60) as client:
            await main(client)

    asyncio.run(whole())


def test_a_mounted_gateway_answers_below_its_path(served: Served) -> None:
    gateway = create_app(served.settings)

    @asynccontextmanager
    async def start(_: Starlette) -> AsyncIterator[None]:
        async with lifespan(gateway):
            yield

    host = Starlette(routes=[Mount("/inference", gateway)], lifespan=start)

    async def main(client: httpx.AsyncClient) -> None:
        async with host.router.lifespan_context(host):
            response = await client.post("/inference/v2/models/mirror/infer", json=question(3))
            assert response.json()["outputs"][0]["data"] == [3]
            assert response.headers["Location"].startswith("/inference/v2/requests/")
            found = (await client.get(response.headers["Location"])).json()
            assert (found["state"], found["urls"]["self"]) == ("succeeded", response.headers["Location"])
            listed = (await client.get("/inference/v2/models")).json()["models"]
            assert listed[0]["url"].startswith("http://app/inference/v2/models/")

    run(host, main)


def test_the_app_of_the_room_reads_its_settings_when_it_is_used(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables_of(served.settings).items():
        monkeypatch.setenv(name, value)
    gateway = create_app()
    host = FastAPI()
    host.mount("/models", gateway)

    async def main(client: httpx.AsyncClient) -> None:
        # Nobody ran its lifespan: the first request opens it.
        response = await client.post("/models/v2/models/mirror/infer", json=question(4))
        assert response.json()["outputs"][0]["data"] == [4]
        await gateway.state.opening.close()

    run(host, main)


def test_without_settings_a_request_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    for name in ("HEADRACE_BROKER_URL", "HEADRACE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    async def main(client: httpx.AsyncClient) -> None:
        response = await client.get("/v2/models")
        assert (response.status_code, response.json()["type"]) == (500, "urn:headrace:problem:configuration")
        assert "HEADRACE_BROKER_URL" in response.json()["error"]

    run(create_app(), main)
