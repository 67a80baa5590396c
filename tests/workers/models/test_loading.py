"""A model that is loaded on demand holds up no other, and its requests always end."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from tests.plugin import write_plugin
from tests.workers.conftest import StartWorker, running_worker
from tests.workers.predictions import prediction_of
from tests.workers.sleepy_runtime import SleepyRuntime, ones, write_sleepy

from headrace.contracts import DeadlineExceeded, PackageError, Settings
from headrace.producers import Client

#: Seconds that version 1 of `late` takes to load; a worker starts with version 2.
LOAD_S = 3.0


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    models = tmp_path / "sleepy"
    write_sleepy(models, "late", run_s=0.0, load_s=LOAD_S)
    write_sleepy(models, "late", run_s=0.0, version="2")
    write_sleepy(models, "fast", run_s=0.0)
    # A shutdown that waited for a load would take as long as it may.
    return settings.model_copy(update={"models": models, "grace_s": 120.0})


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> StartWorker:
    plugin = str(write_plugin(tmp_path / "plugin", SleepyRuntime))
    return lambda: running_worker(settings, tmp_path / "worker.log", PYTHONPATH=plugin)


def test_other_models_and_versions_are_served_while_one_is_loaded(settings: Settings, start: StartWorker) -> None:
    with start(), Client(settings) as client:
        client.predict("fast", ones(1))
        # More than fits one batch: what is beyond waits in the server, and keeps the queue free for version 2.
        late = client.submit_many("late", {"x": np.arange(1, 21, dtype=np.float32)[:, None]}, version="1")
        served = 0
        while not late[0].done():
            assert client.predict("fast", ones(1), timeout_s=60)
            assert client.predict("late", ones(1), timeout_s=60)
            served += 1
        # If one of these had waited for the load, it would have been the last.
        assert served > 3
        answers = [handle.result(timeout_s=60)["y"].item() for handle in late]
        assert answers == [2.0 * number for number in range(1, 21)]
        assert all(prediction_of(client, handle.id).version == "1" for handle in late)
        assert all(prediction_of(client, handle.id).attempts == 1 for handle in late)


def test_a_load_that_fails_fails_its_requests_and_no_others(settings: Settings, start: StartWorker) -> None:
    (settings.models / "late" / "1" / "model.txt").write_text("not what the checksum says")
    with start(), Client(settings) as client:
        late = [client.submit("late", ones(1), version="1") for _ in range(10)]
        for handle in late:
            with pytest.raises(PackageError, match="does not match its checksum"):
                handle.result(timeout_s=60)
        assert client.predict("late", ones(1), timeout_s=60)["y"].item() == 2


def test_what_waits_for_a_load_that_never_ends_expires_and_holds_up_no_shutdown(
    settings: Settings, start: StartWorker
) -> None:
    (settings.models / "late" / "1" / "model.txt.wait").touch()
    with start() as worker, Client(settings) as client:
        hopeless = client.submit("late", ones(1), version="1", deadline_s=LOAD_S + 1)
        patient = client.submit("late", ones(1), version="1")
        with pytest.raises(DeadlineExceeded):
            hopeless.result(timeout_s=60)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        (settings.models / "late" / "1" / "model.txt.wait").unlink()
        with start():
            assert patient.result(timeout_s=60)["y"].item() == 2
        assert prediction_of(client, patient.id).attempts == 1
