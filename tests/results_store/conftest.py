"""Databases with the schema of this release, and batches to put into them."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.cli.stack.servers import Postgres
from headrace.contracts.ids import new_ids
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter
from headrace.testing import TemporaryStack

OUTPUTS = b'{"label":[7],"scores":[[0.25,0.75]]}'
DATATYPES = "label:INT64,scores:FP32"


@pytest.fixture
def store_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    """The URL of a migrated, empty database that is this test's own."""
    with headrace_stack.results_store() as url:
        yield url


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
    def make(**fields: Any) -> Row:
        defaults: dict[str, Any] = {
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

    def make(count: int = 1, **fields: Any) -> BatchRows:
        rows = fields.pop("rows", None) or [make_row() for _ in range(count)]
        now = time.time()
        defaults: dict[str, Any] = {
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


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A Postgres that this test may kill and start again."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder, Postgres(Path(folder) / "postgres") as server:
        yield server
