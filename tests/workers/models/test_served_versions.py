"""Clients check requests against what workers serve, whatever lies in a model directory by now."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.eventually import eventually
from tests.plugin import write_plugin
from tests.workers.conftest import StartWorker, running_worker
from tests.workers.predictions import prediction_of
from tests.workers.sleepy_runtime import SleepyRuntime, ones, write_sleepy

from headrace.contracts import Settings, SignatureMismatch
from headrace.contracts.ids import new_id
from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.contracts.tensors.codec import encode_tensors
from headrace.producers import AsyncClient, Client
from headrace.queueing.consumer.serving import SERVED_TTL_S, served


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    models = tmp_path / "sleepy"
    write_sleepy(models, "m", run_s=0.0, version="1")
    return settings.model_copy(update={"models": models})


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> StartWorker:
    plugin = str(write_plugin(tmp_path / "plugin", SleepyRuntime))
    return lambda name="one": running_worker(settings, tmp_path / f"{name}.log", name=name, PYTHONPATH=plugin)


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        yield broker


def wait_until_served(broker: redis.Redis, *versions: str) -> None:
    def are_served() -> bool:
        return sorted(each.version for each in served(broker, "infer.m")) == sorted(versions)

    eventually(are_served, 60, f"the versions {versions} to be served")


def add_version_2(settings: Settings) -> Path:
    """Add a version with another signature: two numbers a row."""
    return write_sleepy(settings.models, "m", run_s=0.0, version="2", size=2)


def test_after_a_version_was_added_the_old_inputs_work_until_the_worker_restarts(
    settings: Settings, start: StartWorker, broker: redis.Redis
) -> None:
    with start(), Client(settings) as client:
        wait_until_served(broker, "1")
        assert client.predict("m", ones(1))["y"].shape == (1, 1)
        add_version_2(settings)
        with Client(settings) as fresh:
            for each in (client, fresh):
                handle = each.submit("m", ones(1))
                assert handle.result(timeout_s=60)["y"].shape == (1, 1)
                assert prediction_of(client, handle.id).version == "1"
                with pytest.raises(SignatureMismatch, match=r"x FP32 \[rows, 1\]"):
                    each.submit("m", ones(1, size=2))
            assert fresh.predict("m", ones(1, size=2), version="2")["y"].shape == (1, 2)
    with start("two"), Client(settings) as client:
        wait_until_served(broker, "2")
        assert client.predict("m", ones(1, size=2))["y"].shape == (1, 2)
        with pytest.raises(SignatureMismatch, match=r"x FP32 \[rows, 2\]"):
            client.submit("m", ones(1))


def test_asyncio_clients_go_by_the_workers_too(settings: Settings, start: StartWorker, broker: redis.Redis) -> None:
    async def predict() -> tuple[int, ...]:
        async with AsyncClient(settings) as client:
            with pytest.raises(SignatureMismatch):
                await client.submit_many("m", ones(3, size=2))
            return (await client.predict("m", ones(1), timeout_s=60))["y"].shape

    with start():
        wait_until_served(broker, "1")
        add_version_2(settings)
        assert asyncio.run(predict()) == (1, 1)


def test_a_client_without_the_model_directory_checks_as_well(
    settings: Settings, start: StartWorker, broker: redis.Redis, tmp_path: Path
) -> None:
    elsewhere = settings.model_copy(update={"models": tmp_path / "nothing"})
    with start(), Client(elsewhere) as client:
        wait_until_served(broker, "1")
        with pytest.raises(SignatureMismatch, match=r"x FP32 \[rows, 1\]"):
            client.submit("m", ones(1, size=2))
        assert client.predict("m", {"x": [[1]]}, timeout_s=60)["y"].tolist() == [[2]]


def test_a_version_that_was_removed_is_served_by_who_has_it(
    settings: Settings, start: StartWorker, broker: redis.Redis
) -> None:
    with start(), Client(settings) as client:
        wait_until_served(broker, "1")
        shutil.rmtree(settings.models / "m")
        write_sleepy(settings.models, "other", run_s=0.0)
        assert client.predict("m", ones(1), timeout_s=60)["y"].tolist() == [[2]]
        assert client.predict("m", ones(1), timeout_s=20, version="1")["y"].tolist() == [[2]]


@pytest.mark.parametrize("fault", ["missing", "damaged", "half a manifest"])
def test_a_folder_that_is_still_being_copied_is_not_chosen(
    settings: Settings, start: StartWorker, broker: redis.Redis, fault: str
) -> None:
    folder = add_version_2(settings)
    if fault == "missing":
        (folder / "model.txt").unlink()
    elif fault == "damaged":
        (folder / "model.txt").write_text("0.0 0.0 and more")
    else:
        manifest = folder / "model.toml"
        manifest.write_text(manifest.read_text()[:60])
    with start(), Client(settings) as client:
        wait_until_served(broker, "1")
        assert client.predict("m", ones(1), timeout_s=60)["y"].shape == (1, 1)


def test_workers_that_disagree_answer_all_requests_with_the_version_that_all_can_serve(
    settings: Settings, start: StartWorker, broker: redis.Redis
) -> None:
    with start("one"):
        wait_until_served(broker, "1")
        add_version_2(settings)
        with start("two"), Client(settings) as client:
            wait_until_served(broker, "1", "2")
            handles = [client.submit("m", ones(1)) for _ in range(40)]
            assert {handle.result(timeout_s=60)["y"].shape for handle in handles} == {(1, 1)}
            assert {prediction_of(client, handle.id).version for handle in handles} == {"1"}


def test_a_request_that_was_checked_against_another_version_is_told_so(
    settings: Settings, start: StartWorker, broker: redis.Redis
) -> None:
    add_version_2(settings)
    request = Request(
        id=new_id(),
        model="m",
        body=encode_tensors(ones(1)),
        header=RequestHeader(checked="1", submitted_at=time.time()),
    )
    with start(), Client(settings) as client:
        wait_until_served(broker, "2")
        broker.lpush("infer.m", json.dumps(json.loads(encode_request(request))))
        row = eventually(lambda: client.get(request.id), 30, "the row")
    assert row is not None
    assert row.state == "failed"
    assert "serves version 2, but the request was checked against version 1" in str(row.error)


def test_what_a_killed_worker_served_counts_until_its_lease_ends(
    settings: Settings, start: StartWorker, broker: redis.Redis
) -> None:
    with start() as worker:
        wait_until_served(broker, "1")
        worker.kill()
        worker.wait()
        wait_until_served(broker)
    with start("two"):
        wait_until_served(broker, "1")
    # The one that was stopped took its word back; that of the killed one goes by itself.
    assert [0 < broker.ttl(key) <= SERVED_TTL_S for key in broker.keys("headrace:served:*")] == [True]
