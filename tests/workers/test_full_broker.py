"""A broker whose memory is full of requests: only workers can empty it, also those that connect while it is full."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
import redis
from onnx import helper
from pydantic import SecretStr
from tests.eventually import eventually
from tests.queueing.wire import Wire
from tests.workers.conftest import running_worker, write_package

from headrace.cli.stack.servers import Valkey
from headrace.contracts import Settings
from headrace.producers import Client, Handle
from headrace.results_store import migrate

REQUESTS = 300


@pytest.fixture
def settings(tmp_path: Path, postgres_uri: str) -> Iterator[Settings]:
    """Return the settings of workers and clients of a server whose memory may be filled."""
    write_package(
        tmp_path / "models",
        "double",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"x": ("FP32", (4,))},
        {"y": ("FP32", (4,))},
        [("two", np.float32(2))],
    )
    with psycopg.connect(postgres_uri, autocommit=True) as postgres:
        postgres.execute("DROP DATABASE IF EXISTS full_broker WITH (FORCE)")
        postgres.execute("CREATE DATABASE full_broker")
    database_url = postgres_uri.replace("/postgres?", "/full_broker?", 1)
    migrate(database_url)
    with Valkey(tmp_path / "valkey") as server:
        yield Settings(
            broker_url=SecretStr(server.url),
            database_url=SecretStr(database_url),
            models=tmp_path / "models",
            home=tmp_path / "home",
            lease_s=10.0,
        )


def submit(client: Client) -> list[Handle]:
    return client.submit_many("double", {"x": np.ones((REQUESTS, 4), np.float32)})


def set_maxmemory(settings: Settings, size_bytes: int) -> None:
    with redis.Redis.from_url(settings.require_broker_url()) as admin:
        admin.config_set("maxmemory", size_bytes)


def all_stored(client: Client, handles: list[Handle]) -> bool:
    return all(client.get(handle.id) is not None for handle in handles)


def test_worker_that_starts_at_a_full_broker_serves_what_fills_it(settings: Settings, tmp_path: Path) -> None:
    with Client(settings) as client:
        handles = submit(client)
        set_maxmemory(settings, 1)
        with running_worker(settings, tmp_path / "worker.log") as process:
            eventually(lambda: all_stored(client, handles), 60, "the rows")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_worker_that_reconnects_to_a_full_broker_goes_on(settings: Settings, tmp_path: Path) -> None:
    wire = Wire(int(urlsplit(settings.require_broker_url()).port or 0))
    behind = settings.model_copy(update={"broker_url": SecretStr(f"redis://127.0.0.1:{wire.port}/0")})
    log = tmp_path / "worker.log"
    with Client(settings) as client, running_worker(behind, log) as process:
        client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        wire.cut()
        eventually(lambda: "broker away, trying" in log.read_text(), 30, "the outage")
        handles = submit(client)
        set_maxmemory(settings, 1)
        wire.mend()
        eventually(lambda: all_stored(client, handles), 60, "the rows")
        eventually(lambda: "broker back after" in log.read_text(), 30, "the end of the outage")
        # The outbox has a connection of its own and tells of outages in other words.
        assert log.read_text().count("broker away, trying") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    wire.close()
