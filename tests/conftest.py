"""Real servers for every test: one Valkey and one Postgres a session, a database and a key space of its own a test."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import onnx
import psycopg
import pytest
import redis
from onnx import TensorProto, helper
from tests.queueing.wire import Wire
from tests.sentinels import Watched, watched_servers

from headrace.cli.stack.servers import Postgres, Valkey

#: Enough that no two tests of a session share a Valkey database before it was flushed long ago.
DATABASES = 64

_database_numbers = itertools.cycle(range(1, DATABASES))
_database_names = itertools.count()


@pytest.fixture(autouse=True)
def nobody_silences_others() -> Iterator[None]:
    """Logging is as it was after each test; else a later one would miss lines, far from who is to blame."""
    yield
    silenced = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    assert silenced == logging.NOTSET


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def valkey_server(server_folder: Path) -> Iterator[Valkey]:
    with Valkey(server_folder / "valkey", databases=DATABASES) as server:
        yield server


@pytest.fixture
def broker_url(valkey_server: Valkey) -> Iterator[str]:
    """A Redis URL whose database is empty and this test's own."""
    url = f"redis://{valkey_server.host}:{valkey_server.port}/{next(_database_numbers)}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    """A wire to the broker, which can be cut or frozen."""
    wire = Wire(int(urlsplit(broker_url).port or 0))
    yield wire
    wire.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Servers of this test alone, which Sentinels watch."""
    with watched_servers() as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_uri(server_folder: Path) -> Iterator[str]:
    with Postgres(server_folder / "postgres") as server:
        yield server.url


@pytest.fixture
def database_url(postgres_uri: str) -> Iterator[str]:
    """The URL of an empty Postgres database that is this test's own."""
    name = f"test_{next(_database_names)}"
    with psycopg.connect(postgres_uri, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres_uri.replace("/postgres?", f"/{name}?", 1)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """A model file that doubles `x`, FP32 [rows, 4]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
