"""`headrace worker`: several processes, kept running, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.queueing.wire import Wire
from tests.workers.conftest import submit_and_see_it_run, worker_environment
from tests.workers.predictions import prediction_of

from headrace.contracts import Settings
from headrace.producers import Client

FOUR = np.ones((1, 4), np.float32)


@pytest.fixture
def supervisor(settings: Settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", "worker", "--processes", "2"],
            env=worker_environment(settings),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        yield process
        if process.poll() is None:
            process.kill()
        process.wait()


def workers_of(client: Client, count: int) -> set[str]:
    """Ask until `count` different workers answered; return their names."""
    seen: set[str] = set()

    def are_all_seen() -> bool:
        handle = client.submit("double", {"x": FOUR})
        handle.result(timeout_s=60)
        seen.add(prediction_of(client, handle.id).worker or "nobody")
        return len(seen) == count

    eventually(are_all_seen, 90, f"answers of {count} workers")
    return seen


def test_processes_share_the_work_are_restarted_when_they_die_and_stop_together(
    settings: Settings, supervisor: subprocess.Popen[bytes]
) -> None:
    with Client(settings) as client:
        names = workers_of(client, 2)
        assert {name.partition("@")[0] for name in names} == {"headrace-1", "headrace-2"}
        (first, _) = children = psutil.Process(supervisor.pid).children()
        first.kill()
        psutil.wait_procs([first], timeout=60)
        assert workers_of(client, 2) == names
        for _ in range(20):
            os.kill(supervisor.pid, signal.SIGTERM)
        assert supervisor.wait(60) == 0
        assert not any(child.is_running() for child in children)


def test_workers_end_when_their_supervisor_was_killed(settings: Settings, supervisor: subprocess.Popen[bytes]) -> None:
    with Client(settings) as client:
        workers_of(client, 2)
    children = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_a_second_sigint_ends_all_at_once(settings: Settings, supervisor: subprocess.Popen[bytes]) -> None:
    with Client(settings) as client:
        workers_of(client, 2)
        handle = submit_and_see_it_run(client, settings, rows=600)
        children = psutil.Process(supervisor.pid).children()
        supervisor.send_signal(signal.SIGINT)
        # The worker that has nothing to do ends at the first.
        eventually(lambda: not all(child.is_running() for child in children), 30, "the end of one worker")
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(60) == 1  # 0 if it had waited for the end of the grace period
        assert client.get(handle.id) is None
        assert not any(child.is_running() for child in children)


def test_a_signal_while_everything_starts_ends_it(settings: Settings, supervisor: subprocess.Popen[bytes]) -> None:
    threading.Event().wait(0.5)  # any moment will do
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) in (0, -signal.SIGTERM)


def test_a_process_that_dies_young_while_the_broker_refuses_is_started_again(
    settings: Settings, tmp_path: Path
) -> None:
    """Without the refusal it would be a mistake in the set-up, here an address without Postgres."""
    wire = Wire(int(urlsplit(settings.require_broker_url()).port or 0))
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    url = SecretStr(f"redis://127.0.0.1:{wire.port}/0")
    behind = settings.model_copy(update={"broker_url": url, "database_url": SecretStr(nowhere)})
    code = (
        "from headrace.contracts import load_settings; from headrace.workers.process import supervisor; "
        "supervisor.FIRST_START_S = 60.0; "  # a busy machine takes longer than the time for a first start
        "raise SystemExit(supervisor.Supervisor(load_settings(), 1, 'x').run())"
    )
    log = tmp_path / "log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-c", code], env=worker_environment(behind), stdout=file, stderr=subprocess.STDOUT
            )

    wire.answer("NOREPLICAS Not enough good replicas to write.")
    process = start()
    eventually(lambda: "restarting" in log.read_text() or process.poll() is not None, 60, "the line of a restart")
    assert process.poll() is None, log.read_text()
    assert "broker away" in log.read_text()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    wire.answer("")
    assert start().wait(60) == 1
    assert "restarting" not in log.read_text()
    wire.close()
