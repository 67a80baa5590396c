"""Connections to scripted servers of the Open Inference Protocol, which close with the test."""

from __future__ import annotations

import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.conftest import Serve
from tests.runtimes.remote.http.scripted import Answerer, ScriptedServer

from headrace.runtimes.remote.base import Access
from headrace.runtimes.remote.oip.http import OipHttp


class Connect:
    """Starts a server and connects to it."""

    def __init__(self, serve: Serve, closing: Closing) -> None:
        self._serve = serve
        self._closing = closing

    def __call__(
        self, answer: Answerer, *, version: str = "", torchserve: bool = False
    ) -> tuple[ScriptedServer, OipHttp]:
        server = self._serve(answer)
        connection = OipHttp(server.address, "m", access=Access(), version=version, torchserve=torchserve)
        return server, self._closing(connection)


@pytest.fixture
def connect(serve: Serve, closing: Closing) -> Connect:
    return Connect(serve, closing)
