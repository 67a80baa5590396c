"""Clients, workers and commands whose broker URL names Sentinels, before and after the master dies."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.replicated_valkey import wait_for_replica
from tests.sentinels import Watched
from tests.workers.conftest import worker_environment

from headrace.contracts import RequestLost, Settings
from headrace.producers import AsyncClient, Client, Handle
from headrace.queueing import connect_to, keys, queue_stats
from headrace.results_store import migrate

FOUR = np.ones((1, 4), np.float32)


@pytest.fixture
def settings(watched: Watched, models: Path, database_url: str, tmp_path: Path) -> Settings:
    migrate(database_url)
    return Settings(
        broker_url=SecretStr(f"{watched.url('headrace+sentinel')}?master_name={Watched.NAME}"),
        database_url=SecretStr(database_url),
        models=models,
        home=tmp_path / "home",
        key_prefix="shop:",
        broker_timeout_s=3.0,
        lease_s=8.0,
        grace_s=10.0,
    )


def command(settings: Settings, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        **worker_environment(settings),
        "HEADRACE_KEY_PREFIX": settings.key_prefix,
        "HEADRACE_BROKER_TIMEOUT_S": str(settings.broker_timeout_s),
    }
    return [sys.executable, "-m", "headrace.cli", *arguments], environment


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    line, environment = command(settings, "worker", "--processes", "2")
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def stats(settings: Settings) -> dict[str, int]:
    line, environment = command(settings, "queue", "stats", "--json")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    return {one["queue"]: one["waiting"] + one["in_flight"] for one in json.loads(done.stdout)}


def wait(handle: Handle, results: list[int]) -> None:
    results.append(len(handle.result(90)["y"]))


@pytest.mark.parametrize("fault", [Watched.kill_master, Watched.freeze_master])
def test_a_client_that_waits_and_the_workers_go_on_after_a_failover(
    fault: Callable[[Watched], None],
    settings: Settings,
    watched: Watched,
    worker: subprocess.Popen[bytes],
    tmp_path: Path,
) -> None:
    with Client(settings) as client:
        assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].tolist() == [[2.0] * 4]
        running = client.submit("slow", {"x": np.ones((100, 1), np.float32)})
        waiting = [client.submit("slow", {"x": FOUR[:, :1]}) for _ in range(20)]
        results: list[int] = []
        threads = [threading.Thread(target=wait, args=(each, results)) for each in waiting]
        for thread in threads:
            thread.start()
        with connect_to(settings) as broker:
            eventually(lambda: broker.keys(keys.Keys("shop:").running("*")), 30, "a batch to run")
            wait_for_replica(broker)  # what is not replicated is lost by a failover
        fault(watched)
        for thread in threads:
            thread.join()
        assert results == [1] * 20
        assert len(running.result(90)["y"]) == 100
        assert client.predict("double", {"x": FOUR}, timeout_s=60)["y"].tolist() == [[2.0] * 4]
        assert client.is_served("double")
        assert worker.poll() is None
    eventually(lambda: stats(settings) == {}, 30, "what was held to be settled")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "Traceback" not in (tmp_path / "worker.log").read_text()


def test_an_asyncio_client_goes_on_after_a_failover(
    settings: Settings, watched: Watched, worker: subprocess.Popen[bytes]
) -> None:
    async def go() -> None:
        async with AsyncClient(settings) as client:
            found = await client.predict("double", {"x": FOUR}, timeout_s=60)
            assert found["y"].tolist() == [[2.0] * 4]
            waiting = [await client.submit("slow", {"x": np.ones((40, 1), np.float32)}) for _ in range(4)]
            gathered = asyncio.gather(*(each.result(90) for each in waiting))
            with connect_to(settings) as broker:
                wait_for_replica(broker)
            await asyncio.to_thread(watched.kill_master)
            assert [len(each["y"]) for each in await gathered] == [40] * 4
            found = await client.predict("double", {"x": FOUR}, timeout_s=60)
            assert found["y"].tolist() == [[2.0] * 4]
            assert await client.is_served("double")

    asyncio.run(go())
    assert worker.poll() is None


def test_what_was_not_replicated_is_told_to_be_lost(settings: Settings, watched: Watched) -> None:
    with Client(settings) as client:
        kept = client.submit("slow", {"x": FOUR[:, :1]})
        with connect_to(settings) as broker:
            wait_for_replica(broker)
        watched.cut_replication()
        lost = client.submit("slow", {"x": FOUR[:, :1]})
        watched.kill_master()
        with pytest.raises(RequestLost):
            lost.result(60)
        assert kept.status() == "pending"


def test_cancelling_and_commands_ask_sentinels_too(settings: Settings, watched: Watched) -> None:
    with Client(settings) as client, connect_to(settings) as broker:
        handle = client.submit("slow", {"x": FOUR[:, :1]})
        assert stats(settings) == {"infer.slow": 1}
        with broker.pubsub() as listener:
            listener.psubscribe("*")
            assert handle.cancel()
            eventually(lambda: "shop:/0.celery.pidbox" in str(listener.get_message(timeout=1)), 30, "the broadcast")
        wait_for_replica(broker)
        watched.kill_master()
        assert stats(settings) == {"infer.slow": 1}
        assert [one.waiting for one in queue_stats(broker)] == [1]
    line, environment = command(settings, "queue", "recover", "--json")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["headrace"] == 0


def test_a_missing_name_is_said_at_once(settings: Settings) -> None:
    url = settings.require_broker_url().partition("?")[0]
    for arguments in (["queue", "stats"], ["worker"], ["predict", "double", "-"]):
        line, environment = command(settings, *arguments)
        done = subprocess.run(
            line,
            env=environment | {"HEADRACE_BROKER_URL": url},
            input='{"x": [[1, 1, 1, 1]]}',
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "?master_name=NAME" in done.stderr, done.stderr
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1
