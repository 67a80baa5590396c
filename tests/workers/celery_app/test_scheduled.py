"""Messages whose time has not come (Celery's `eta` and `countdown`) wait in the server and not in a worker."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from tests.eventually import eventually
from tests.workers.conftest import StartWorker
from tests.workers.predictions import prediction_of

from headrace.contracts import Settings
from headrace.queueing import headrace_url, keys, queue_stats
from headrace.results_store import StoreReader
from headrace.workers.celery_app.scheduled import SHOWN

QUEUE = "infer.double"
ARGUMENTS = {"inputs": {"x": [[1, 2, 3, 4]]}}
MANY = 3_000


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    url = settings.require_broker_url()
    with Celery("peer", broker=url, backend=url, set_as_current=False) as app:
        yield app


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        yield broker


def send(app: Celery, **options: Any) -> AsyncResult[Any]:
    return app.send_task(QUEUE, kwargs=ARGUMENTS, queue=QUEUE, **options)


def waiting_held_delayed(broker: redis.Redis) -> tuple[int, int, int]:
    (stats,) = [stats for stats in queue_stats(broker) if stats.queue == QUEUE]
    return stats.waiting, stats.in_flight, stats.delayed


def test_a_request_runs_when_its_time_has_come_and_not_before(
    settings: Settings, app: Celery, start_worker: StartWorker, broker: redis.Redis
) -> None:
    eta = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=12)
    late, now = send(app, eta=eta), send(app)
    with start_worker():
        assert now.get(timeout=30) == {"y": [[2, 4, 6, 8]]}
        assert late.get(timeout=60) == {"y": [[2, 4, 6, 8]]}
    with StoreReader(settings.require_database_url()) as store:
        row = prediction_of(store, late.id)
    assert row.started_at is not None
    assert row.started_at >= eta
    assert row.attempts == 1
    assert not broker.keys("headrace:delayed*")
    assert not broker.exists(keys.PLAIN.retries)


def test_many_that_wait_for_days_wait_in_the_server_and_no_other_waits_for_them(
    app: Celery, start_worker: StartWorker, broker: redis.Redis
) -> None:
    first = send(app, countdown=3 * 86_400)
    (message,) = broker.lrange(QUEUE, 0, -1)
    assert isinstance(message, bytes)
    for number in range(1, MANY):
        broker.lpush(QUEUE, message.replace(first.id.encode(), f"{first.id[:-4]}{number:04x}".encode()))
    now = send(app)
    with start_worker():
        assert now.get(timeout=60) == {"y": [[2, 4, 6, 8]]}
        eventually(lambda: waiting_held_delayed(broker) == (0, 0, MANY), 60, "those that wait for days to be put aside")
        delayed: list[Any] = broker.zrange(keys.PLAIN.delayed, 0, 0, withscores=True)
        ((_, due_ms),) = delayed
        assert abs(due_ms / 1000 - broker.time()[0] - 3 * 86_400) < 600
        scheduled = app.control.inspect(timeout=10, limit=1).scheduled()
        assert scheduled is not None
        (shown,) = scheduled.values()
        assert len(shown) == min(MANY, SHOWN)
        assert {one["request"]["name"] for one in shown} == {QUEUE}
        assert all(one["request"]["id"].startswith(first.id[:-4]) for one in shown)
        assert abs(dt.datetime.fromisoformat(shown[0]["eta"]).timestamp() - due_ms / 1000) < 1


def test_a_request_that_waits_outlives_its_worker(app: Celery, start_worker: StartWorker, broker: redis.Redis) -> None:
    late = send(app, countdown=10)
    with start_worker():
        assert send(app).get(timeout=30)
    with start_worker():
        assert late.get(timeout=60) == {"y": [[2, 4, 6, 8]]}


def test_a_deadline_before_its_time_ends_a_request(
    settings: Settings, app: Celery, start_worker: StartWorker, broker: redis.Redis
) -> None:
    late = send(app, countdown=86_400, expires=8)
    with start_worker():
        assert send(app).get(timeout=30)
        assert broker.zcard(keys.PLAIN.delayed) == 1
        with pytest.raises(Exception, match="deadline"):
            late.get(timeout=60)
    with StoreReader(settings.require_database_url()) as store:
        assert prediction_of(store, late.id).state == "expired"
    assert not broker.keys("headrace:delayed*")


def test_a_purge_takes_those_along_that_wait_for_their_time(
    settings: Settings, app: Celery, start_worker: StartWorker, broker: redis.Redis
) -> None:
    send(app, countdown=3600)
    with start_worker():
        assert send(app).get(timeout=30)
        assert broker.zcard(keys.PLAIN.delayed) == 1
    send(app)
    with kombu.Connection(headrace_url(settings.require_broker_url())) as connection:
        assert kombu.Queue(QUEUE)(connection.default_channel).purge() == 2
    assert not broker.exists(keys.PLAIN.delayed, keys.PLAIN.delayed_messages, QUEUE)
