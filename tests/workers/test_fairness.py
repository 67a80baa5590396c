"""Two workers share what there is: nothing waits behind a long batch while the other worker is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from tests.eventually import eventually
from tests.plugin import write_plugin
from tests.workers.conftest import running_worker
from tests.workers.predictions import prediction_of
from tests.workers.sleepy_runtime import SleepyRuntime, ones, write_sleepy

from headrace.contracts import Settings
from headrace.producers import Client
from headrace.queueing.keys import PLAIN

#: Seconds of a slow batch, of four requests; a busy machine answers several fast ones meanwhile.
SLOW_S = 4.0


#: Starts as many workers as it is told; they run in the `with`.
StartWorkers = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of workers that serve `slow` and `fast` and nothing else."""
    models = tmp_path / "sleepy"
    write_sleepy(models, "slow", run_s=SLOW_S)
    write_sleepy(models, "fast", run_s=0.001, max_rows=64)
    return settings.model_copy(update={"models": models})


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> StartWorkers:
    """`with start(2):` runs that many workers; their log is `worker.log` in tmp_path."""
    plugin = str(write_plugin(tmp_path / "plugin", SleepyRuntime))

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
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        eventually(lambda: broker.zcard(PLAIN.consumers(queue)) == count, 60, f"{count} workers")


def test_two_idle_workers_share_slow_batches_and_a_fast_model_finds_the_free_one(
    settings: Settings, start: StartWorkers
) -> None:
    with (
        start(2),
        Client(settings) as client,
        redis.Redis.from_url(settings.require_broker_url()) as broker,
    ):
        slow = client.submit_many("slow", ones(8))
        for handle in slow:
            handle.result(timeout_s=60)
        rows = [prediction_of(client, handle.id) for handle in slow]
        assert len({row.worker for row in rows}) == 2
        started = [row.started_at for row in rows if row.started_at is not None]
        assert len(started) == len(rows)
        assert max(started) < min(row.finished_at for row in rows), "one after the other"
        one = client.submit_many("slow", ones(4))
        eventually(lambda: broker.keys(PLAIN.running("*")), 30, "the slow batch to run")
        beside = []
        while not one[0].done():
            beside.append(client.submit("fast", ones(1)))
            beside[-1].result(timeout_s=60)
        assert len(beside) > 4
        (busy,) = {prediction_of(client, handle.id).worker for handle in one}
        # The last of them may have come when the slow batch had just ended.
        assert busy not in {prediction_of(client, handle.id).worker for handle in beside[:-1]}
        assert {prediction_of(client, handle.id).attempts for handle in beside} == {1}
