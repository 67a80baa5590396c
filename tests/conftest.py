"""Real servers for every test: one Valkey and one Postgres a session, a database and a key space of its own a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import pytest
from onnx import TensorProto, helper
from tests.sentinels import Watched, watched_servers

from headrace.cli.stack.servers import Valkey
from headrace.testing import TemporaryStack

pytest_plugins = ["headrace.testing"]

#: Fixtures that start servers → the mark of tests that use one, themselves or through other fixtures. `any_url` asks for
#: a server by name, when it runs.
MARKS: Final = {"headrace_stack": "server", "old_redis_url": "server", "own_server": "server", "any_url": "server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures they use, so that `make test-fast` leaves out what needs a server or a worker."""
    for item in items:
        for name in {MARKS[fixture] for fixture in getattr(item, "fixturenames", ()) if fixture in MARKS}:
            item.add_marker(name)


@pytest.fixture(autouse=True)
def nobody_silences_others() -> Iterator[None]:
    """Logging is as it was after each test; else a later one would miss lines, far from who is to blame."""
    yield
    silenced, _ = logging.root.manager.disable, logging.disable(logging.NOTSET)
    assert silenced == logging.NOTSET


@pytest.fixture(scope="session")
def server_folder(headrace_stack: TemporaryStack) -> Path:
    return headrace_stack.folder


@pytest.fixture(scope="session")
def valkey_server(headrace_stack: TemporaryStack) -> Valkey:
    return headrace_stack.valkey


@pytest.fixture
def broker_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    """A Redis URL whose database is empty and this test's own."""
    with headrace_stack.key_space() as url:
        yield url


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Servers of this test alone, which Sentinels watch."""
    with watched_servers() as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_uri(headrace_stack: TemporaryStack) -> str:
    return headrace_stack.postgres.url


@pytest.fixture
def database_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    """The URL of an empty Postgres database that is this test's own."""
    with headrace_stack.database() as url:
        yield url


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """A model file that doubles `x`, FP32 [rows, 4]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
