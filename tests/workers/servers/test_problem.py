"""What a user sees while a model server gives no answers: in commands, and in the error of a wait that ended."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from tests.eventually import eventually
from tests.workers.servers.conftest import ModelServer

from headrace.contracts import ResultTimeout, Settings
from headrace.producers import AsyncClient, Client
from headrace.producers.jobs.errors import JobTimeout
from headrace.queueing import connect_to
from headrace.queueing.consumer.serving import problems_in, served

GONE = "'m' is not found; load the model there, or correct [server] in its model.toml"
X = {"x": np.ones((1, 1), np.float32)}


def told(broker: redis.Redis) -> str:
    return "".join(map(str, problems_in(served(broker, "infer.m"))))


def headrace(settings: Settings, *words: str) -> str:
    """Return what a command prints, run beside the worker with its settings."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *words],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of commands that are run beside the worker."""
    return {
        **os.environ,
        "HEADRACE_BROKER_URL": settings.require_broker_url(),
        "HEADRACE_DATABASE_URL": settings.require_database_url(),
        "HEADRACE_MODELS": str(settings.models),
    }


def test_why_requests_wait_is_told_until_they_do_no_more(
    settings: Settings, server: ModelServer, start_worker: Callable[..., Any]
) -> None:
    server.does(unloaded=True)
    with start_worker(), Client(settings) as client, connect_to(settings) as broker:
        handle = client.submit("m", X)
        eventually(lambda: GONE in told(broker), 60, "a worker's report")
        with pytest.raises(
            ResultTimeout, match=r"its worker reports: m at grpc://.*'m' is not found.*\(since .* UTC\)"
        ):
            handle.result(timeout_s=0.1)
        assert client.submit("double", {"x": np.ones((1, 4), np.float32)}).result(timeout_s=30)

        (queue,) = json.loads(headrace(settings, "queue", "stats", "--json"))
        assert queue["queue"] == "infer.m"
        assert GONE in queue["problem"][0]["text"]
        assert any(
            line.startswith("m: ") and GONE in line for line in headrace(settings, "queue", "stats").splitlines()
        )
        assert GONE in headrace(settings, "models", "list")
        (shown,) = json.loads(headrace(settings, "models", "show", "m", "--json"))["problem"]
        assert GONE in shown["text"]

        server.does()
        assert handle.result(timeout_s=60)["y"].item() == 2.0
        eventually(lambda: told(broker) == "", 60, "a worker that reports nothing")
        assert json.loads(headrace(settings, "models", "show", "m", "--json"))["problem"] == []


def test_who_watches_a_job_is_told_why_it_waits(
    settings: Settings, server: ModelServer, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    source, output, told_file = tmp_path / "in.parquet", tmp_path / "out", tmp_path / "told"
    pq.write_table(pa.table({"x": pa.array([1.0, 2.0], pa.float32())}), source)
    server.does(unloaded=True)
    with start_worker(HEADRACE_BULK_ROOTS=str(tmp_path)), Client(settings) as client, told_file.open("wb") as told_of:
        eventually(lambda: client.is_served("m"), 60, "a worker")
        job = client.score("m", source, output)
        watching = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", "jobs", "watch", job.id],
            env=environment(settings),
            stdout=told_of,
            stderr=told_of,
        )
        try:
            eventually(lambda: GONE in told_file.read_text().replace("\n", " "), 60, "a word of `jobs watch`")
            assert GONE in job.problem()
            with pytest.raises(JobTimeout, match=r"it goes on; its worker reports: m at grpc://.*'m' is not found"):
                job.wait(0.1)
            server.does()
            job.wait(60)
            assert watching.wait(60) == 0
        finally:
            watching.kill()
            watching.wait()
    assert job.problem() == ""
    assert pq.read_table(output)["y"].to_pylist() == [[2.0], [4.0]]


def test_asyncio_clients_are_told_why_a_server_is_away(
    settings: Settings, server: ModelServer, start_worker: Callable[..., Any]
) -> None:
    server.kill()

    async def wait(broker: redis.Redis) -> str:
        async with AsyncClient(settings) as client:
            handle = await client.submit("m", X)
            await asyncio.to_thread(eventually, lambda: told(broker), 60, "a worker's report")
            with pytest.raises(ResultTimeout) as raised:
                await handle.result(timeout_s=0.1)
            return str(raised.value)

    with start_worker(), connect_to(settings) as broker:
        assert "its worker reports: m at grpc://127.0.0.1" in asyncio.run(wait(broker))
