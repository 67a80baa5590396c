"""Two workers share what there is: nothing waits behind a long batch while the other worker is free."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from tests.workers.conftest import running_worker
from tests.workers.sleepy_runtime import ones, write_plugin, write_sleepy

from headrace.contracts import Settings
from headrace.producers import Client
from headrace.queueing.keys import PLAIN

#: Seconds of a slow batch, of four requests.
SLOW_S = 1.0


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of workers that serve `slow` and `fast` and nothing else."""
    models = tmp_path / "sleepy"
    write_sleepy(models, "slow", run_s=SLOW_S)
    write_sleepy(models, "fast", run_s=0.001, max_rows=64)
    return settings.model_copy(update={"models": models})


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Callable[..., object]:
    """`with start(2):` runs that many workers; their log is `worker.log` in tmp_path."""
    plugin = str(write_plugin(tmp_path / "plugin"))

    @contextmanager
    def start(count: int, **environment: str) -> Iterator[None]:
        with ExitStack() as stack:
            for number in range(count):
                worker = running_worker(
                    settings, tmp_path / "worker.log", name=f"worker-{number}", PYTHONPATH=plugin, **environment
                )
                stack.enter_context(worker)
            wait_for_consumers(settings, "infer.fast", count)
            yield

    return start


def wait_for_consumers(settings: Settings, queue: str, count: int) -> None:
    ends_at = time.monotonic() + 60
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        while broker.zcard(PLAIN.consumers(queue)) < count:
            assert time.monotonic() < ends_at
            time.sleep(0.02)


def rows_of(settings: Settings, model: str) -> list[tuple[str, int, str]]:
    """Worker, attempts and batch of each row of a model."""
    with psycopg.connect(settings.require_database_url()) as connection:
        return connection.execute(
            "SELECT worker, attempts, batch_id::text FROM predictions WHERE model = %s", [model]
        ).fetchall()


def seconds_of(client: Client, model: str) -> float:
    began = time.perf_counter()
    client.predict(model, ones(1), timeout_s=30)
    return time.perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def test_two_idle_workers_share_slow_batches_and_a_fast_model_finds_the_free_one(settings, start) -> None:
    with start(2), Client(settings) as client:
        idle = [seconds_of(client, "fast") for _ in range(200)]
        began = time.perf_counter()
        slow = client.submit_many("slow", ones(8))
        for handle in slow:
            handle.result(timeout_s=60)
        makespan_s = time.perf_counter() - began
        workers = {worker for worker, _, _ in rows_of(settings, "slow")}
        print(f"makespan {makespan_s:.2f} s by {len(workers)} workers")
        one = client.submit_many("slow", ones(4))
        busy: list[float] = []
        while not one[0].done():
            busy.append(seconds_of(client, "fast"))
        print(
            f"idle p50 {1000 * statistics.median(idle):.1f} p99 {1000 * percentile(idle, 0.99):.1f} ms; beside a slow "
            f"batch p50 {1000 * statistics.median(busy):.1f} p75 {1000 * percentile(busy, 0.75):.1f} "
            f"p99 {1000 * percentile(busy, 0.99):.1f} max {1000 * max(busy):.1f} ms of {len(busy)}"
        )
        assert len(workers) == 2
        assert makespan_s / SLOW_S < 1.1
        assert percentile(busy, 0.99) < 3 * percentile(idle, 0.99)
        assert {attempts for _, attempts, _ in rows_of(settings, "fast")} == {1}
