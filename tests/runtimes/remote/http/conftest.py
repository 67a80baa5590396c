"""Scripted servers and the connections to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.runtimes.remote.http.scripted import Answerer, ScriptedServer


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Start servers that stop with the test."""
    with ExitStack() as stack:

        def start(answer: Answerer, context=None) -> ScriptedServer:
            server = ScriptedServer(answer, context)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def closing() -> Iterator[Callable]:
    """Close clients with the test."""
    with ExitStack() as stack:

        def keep(client):
            stack.callback(client.close)
            return client

        yield keep
