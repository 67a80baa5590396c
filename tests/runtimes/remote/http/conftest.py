"""Scripted servers, which stop with the test."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.runtimes.remote.http.scripted import Answerer, ScriptedServer


class Serve:
    """Starts servers. context: of those that speak TLS."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, answer: Answerer, context: ssl.SSLContext | None = None) -> ScriptedServer:
        server = ScriptedServer(answer, context)
        self._stack.callback(server.stop)
        return server


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(stack)
