"""Workers and clients of two key prefixes on one server, and what is said when the prefixes differ."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import redis
from celery import Celery
from tests.eventually import eventually
from tests.workers.conftest import StartWorker, running_worker

from headrace.contracts import Settings
from headrace.contracts.errors import ResultTimeout
from headrace.producers import AsyncClient, Client
from headrace.queueing import keys, queue_stats
from headrace.queueing.connection.connect import connect_to

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def of(settings: Settings, prefix: str) -> Settings:
    return settings.model_copy(update={"key_prefix": prefix})


@pytest.fixture
def spaces(settings: Settings) -> tuple[Settings, Settings]:
    return of(settings, "a:"), of(settings, "b:")


def test_two_prefixes_on_one_server_are_served_by_their_own_workers_only(
    settings: Settings, spaces: tuple[Settings, Settings], tmp_path: Path
) -> None:
    a, b = spaces
    with Client(a) as to_a, Client(b) as to_b, redis.Redis.from_url(settings.require_broker_url()) as broker:
        with running_worker(a, tmp_path / "a.log", HEADRACE_KEY_PREFIX="a:"):
            np.testing.assert_array_equal(to_a.predict("double", X, timeout_s=60)["y"], X["x"] * 2)
            waiting = to_b.submit("double", X)
            with pytest.raises(ResultTimeout) as told:
                waiting.result(timeout_s=0.5)
            assert not to_b.is_served("double")
            with connect_to(b) as client:
                assert [stats.waiting for stats in queue_stats(client)] == [1]
            with running_worker(b, tmp_path / "b.log", HEADRACE_KEY_PREFIX="b:"):
                np.testing.assert_array_equal(waiting.result(timeout_s=60)["y"], X["x"] * 2)
                _check_celery(settings, "b:")
                _check_async(b)
                many = to_b.submit_many("slow", {"x": np.ones((20, 1), np.float32)})
                assert many[-1].cancel()
                assert many[-1].status() == "cancelled"
                assert many[0].result(timeout_s=60)
        names = {key.decode() for key in broker.scan_iter()}
    assert "no worker serves model 'double' at present under the key prefix 'b:', but with the prefix 'a:'" in str(
        told.value
    )
    assert "HEADRACE_KEY_PREFIX" in str(told.value)
    assert {name for name in names if not name.startswith(("a:", "b:"))} <= {keys.PREFIXES}
    assert any(name.startswith("b:celery-task-meta-") for name in names)
    for log in ("a", "b"):
        assert f"workers.key_prefix prefix='{log}:'" in (tmp_path / f"{log}.log").read_text()


def _check_celery(settings: Settings, prefix: str) -> None:
    """A plain Celery client with the prefix in its transport options is served, and reads its result."""
    url = settings.require_broker_url()
    app = Celery("plain", broker=url, backend=url, set_as_current=False)
    options = {"global_keyprefix": prefix}
    app.conf.update(broker_transport_options=options, result_backend_transport_options=options)
    sent = app.send_task("infer.double", queue="infer.double", kwargs={"inputs": {"x": X["x"].tolist()}})
    np.testing.assert_array_equal(sent.get(timeout=30)["y"], X["x"] * 2)
    assert len(eventually(lambda: app.control.ping(timeout=2) or [], 30, "an answer to a ping")) == 1
    app.close()


def _check_async(settings: Settings) -> None:
    async def ask() -> None:
        async with AsyncClient(settings) as client:
            np.testing.assert_array_equal((await client.predict("double", X, timeout_s=60))["y"], X["x"] * 2)

    asyncio.run(ask())


def test_a_client_without_a_prefix_learns_that_the_worker_has_one(settings: Settings, tmp_path: Path) -> None:
    with running_worker(of(settings, "a:"), tmp_path / "a.log", HEADRACE_KEY_PREFIX="a:"), Client(settings) as client:
        with Client(of(settings, "a:")) as right:
            right.predict("double", X, timeout_s=60)
        with pytest.raises(ResultTimeout, match="at present without a key prefix, but with the prefix 'a:' one does"):
            client.predict("double", X, timeout_s=0.1)


def test_a_client_with_a_prefix_learns_that_the_worker_has_none(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(), Client(of(settings, "a:")) as client, Client(settings) as right:
        right.predict("double", X, timeout_s=60)
        with pytest.raises(ResultTimeout, match="under the key prefix 'a:', but with no prefix one does"):
            client.predict("double", X, timeout_s=0.1)
