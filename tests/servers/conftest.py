"""The real servers, each started once, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.connections import Way
from tests.servers.process import ModelServer
from tests.servers.starters import STARTERS

from headrace.runtimes.remote.base import Connection

Running = Callable[[str], ModelServer]
Connect = Callable[..., Connection]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need environments of their own."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker("modelservers")
            # The first test of a server starts it.
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a server by its name, ready; it runs until the session ends."""
    servers: dict[str, ModelServer] = {}

    def run(name: str) -> ModelServer:
        if name not in servers:
            servers[name] = STARTERS[name](tmp_path_factory.mktemp(name))
            servers[name].start()
            servers[name].wait_until_ready()
        return servers[name]

    try:
        yield run
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture
def connect(running: Running) -> Iterator[Connect]:
    """Return a connection to a model of a running server; it is closed after the test."""
    connections: list[Connection] = []

    def open_one(way: Way, model: str, **more: Any) -> Connection:
        connections.append(way.connection(running(way.server).addresses[way.protocol], model, **more))
        return connections[-1]

    yield open_one
    for connection in connections:
        connection.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[[str], ModelServer]]:
    """Return a server of this test alone, ready, which it may break."""
    servers: list[ModelServer] = []

    def run(name: str) -> ModelServer:
        folder = tmp_path / f"{name}-{len(servers)}"
        folder.mkdir()
        servers.append(STARTERS[name](folder))
        servers[-1].start()
        servers[-1].wait_until_ready()
        return servers[-1]

    try:
        yield run
    finally:
        for server in servers:
            server.stop()
