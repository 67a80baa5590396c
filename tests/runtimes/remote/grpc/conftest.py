"""Scripted servers, which stop with the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import grpc
import pytest
from tests.runtimes.remote.grpc.scripted import Answerer, RawServer, ScriptedServer


class Serve:
    """Starts servers; the arguments are those of `ScriptedServer`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(
        self, answers: Mapping[str, Answerer], credentials: grpc.ServerCredentials | None = None, port: int = 0
    ) -> ScriptedServer:
        server = ScriptedServer(answers, credentials, port)
        self._stack.callback(server.stop)
        return server


class ServeRaw:
    """Starts sockets that are no gRPC server; the arguments are those of `RawServer`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, greeting: bytes = b"", hang_up: bool = True) -> RawServer:
        server = RawServer(greeting, hang_up)
        self._stack.callback(server.stop)
        return server


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(stack)


@pytest.fixture
def raw() -> Iterator[ServeRaw]:
    with ExitStack() as stack:
        yield ServeRaw(stack)
