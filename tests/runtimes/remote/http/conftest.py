"""Scripted servers and clients of them, which end with the test."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.runtimes.remote.conftest import Closing
from tests.runtimes.remote.http.scripted import Answerer, ScriptedServer

from headrace.runtimes.remote.base import Access
from headrace.runtimes.remote.transport.http_client import MAX_ANSWER_BYTES, HttpClient


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


class NewClient:
    """Makes clients of servers, which close with the test."""

    def __init__(self, closing: Closing) -> None:
        self._closing = closing

    def __call__(
        self, server: ScriptedServer, access: Access | None = None, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> HttpClient:
        return self._closing(HttpClient(server.address, access or Access(), max_answer_bytes))


@pytest.fixture
def client(closing: Closing) -> NewClient:
    return NewClient(closing)
