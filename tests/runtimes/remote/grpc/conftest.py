"""Scripted servers and the connections to them, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.runtimes.remote.grpc.scripted import RawServer, ScriptedServer


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    with ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> ScriptedServer:
            server = ScriptedServer(*args, **kwargs)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def raw() -> Iterator[Callable[..., RawServer]]:
    with ExitStack() as stack:

        def start(greeting: bytes = b"", hang_up: bool = True) -> RawServer:
            server = RawServer(greeting, hang_up)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    with ExitStack() as stack:

        def keep(connection: Any) -> Any:
            stack.callback(connection.close)
            return connection

        yield keep
