"""What an ordinary Celery worker makes of tasks that come back: rejected, taken from one that died, or run before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from headrace.queueing import headrace_url
from headrace.queueing.keys import PLAIN

APP = """
import os, signal
from celery import Celery
from celery.exceptions import Reject

app = Celery("demo", broker=os.environ["BROKER"], backend=os.environ["BROKER"].replace("headrace", "redis"))
app.conf.broker_transport_options = {"lease_s": 3.0}
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1
app.conf.worker_deduplicate_successful_tasks = True

@app.task(bind=True)
def reject_once(self, name):
    again = self.request.delivery_info["redelivered"]
    app.backend.client.rpush("runs", f"{name} {again}")
    if not again:
        raise Reject(requeue=True)

@app.task
def note(name):
    app.backend.client.rpush("runs", name)

@app.task(bind=True)
def succeed_and_die(self, name):
    app.backend.client.rpush("runs", name)
    # All that Celery does of a success before it acknowledges.
    app.backend.store_result(self.request.id, None, "SUCCESS", request=self.request)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def program(run: Callable[..., Any], tmp_path: Path, broker_url: str) -> Callable[..., Any]:
    (tmp_path / "demo_app.py").write_text(APP)
    return lambda *arguments: run(*arguments, BROKER=headrace_url(broker_url), PYTHONPATH=str(tmp_path))


@pytest.fixture
def start_worker(program: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: program("-m", "celery", "-A", "demo_app", "worker", "-l", "INFO", "-P", "solo")


def send(program: Callable[..., Any], calls: str) -> None:
    assert program("-c", f"from demo_app import *\n{calls}").process.wait() == 0


def test_a_task_that_rejects_unless_it_is_redelivered_runs_twice_and_holds_up_nobody(
    program: Callable[..., Any], start_worker: Callable[[], Any], client: redis.Redis
) -> None:
    send(program, "reject_once.delay('a'); note.delay('b'); note.delay('c')")
    worker = start_worker()
    worker.wait_for("Task .*reject_once.* succeeded")
    worker.stop()
    assert client.lrange("runs", 0, -1) == ["a False", "b", "c", "a True"]
    assert client.keys(PLAIN.in_flight("*")) == []
    assert not client.exists("celery", PLAIN.deliveries)


def test_celerys_own_deduplication_sees_that_a_task_of_a_dead_worker_was_done(
    program: Callable[..., Any], start_worker: Callable[[], Any], client: redis.Redis
) -> None:
    send(program, "succeed_and_die.delay('once')")
    assert start_worker().process.wait() == -9
    worker = start_worker()
    worker.wait_for("already completed successfully")
    worker.stop()
    assert client.lrange("runs", 0, -1) == ["once"]
    assert not client.exists("celery", PLAIN.deliveries)
