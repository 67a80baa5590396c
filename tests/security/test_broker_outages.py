"""A worker whose broker goes away: back at once when it answers, one line when it goes and one when it is back."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from tests.eventually import eventually

from headrace.cli.demo.demo import DATA
from headrace.cli.stack.servers import Valkey
from headrace.contracts import Settings
from headrace.producers import Client
from headrace.queueing import headrace_url
from headrace.workers.celery_app.consumer import FIRST_PAUSE_S, LONGEST_PAUSE_S, Outage, pauses

IMAGE = np.zeros((1, 1, 8, 8), np.float32)


def test_the_first_attempt_is_made_at_once_and_pauses_grow_up_to_a_second() -> None:
    found = list(itertools.islice(pauses(), 200))
    assert found[0] == 0
    assert FIRST_PAUSE_S / 2 <= found[1] <= FIRST_PAUSE_S
    assert all(LONGEST_PAUSE_S / 2 <= pause_s <= LONGEST_PAUSE_S for pause_s in found[5:])
    assert len(set(found[5:])) > 100, "workers must not come in step"


def test_an_outage_is_told_once_and_pauses_once_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage()
    assert outage.take_pause() == 0
    for _ in range(50):
        outage.failed("redis://here", ConnectionError("refused"))
        outage.take_pause()
        assert outage.take_pause() == 0
    outage.ended()
    outage.ended()
    assert [record.message.partition(" after")[0] for record in caplog.records] == [
        "broker away, trying until redis://here answers: refused",
        "broker back",
    ]


@dataclass(frozen=True)
class Running:
    """A worker process and what it needs."""

    server: Valkey
    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self, pattern: str) -> int:
        return len(re.findall(pattern, self.log.read_text()))

    def is_back(self, times: int) -> None:
        """Wait until the worker has said so; it does when its claims have not been refused for half a second."""
        eventually(lambda: self.lines("broker back after") >= times, 60, "the line that says the broker is back")
        assert self.lines("broker back after") == times


@pytest.fixture
def running(migrated_url: str, tmp_path: Path) -> Iterator[Running]:
    with Valkey(tmp_path / "valkey") as server:
        settings = Settings(
            broker_url=SecretStr(server.url),
            database_url=SecretStr(migrated_url),
            models=DATA / "models",
            home=tmp_path,
        )
        log = tmp_path / "worker.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "headrace.workers.app", "worker", "--loglevel", "INFO"],
                env={
                    **os.environ,
                    "HEADRACE_BROKER_URL": server.url,
                    "HEADRACE_DATABASE_URL": migrated_url,
                    "HEADRACE_MODELS": str(DATA / "models"),
                },
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        with Client(settings) as client:
            assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
        yield Running(server, settings, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_worker_serves_after_each_restart_and_says_two_lines(running: Running) -> None:
    for restart in range(1, 4):
        running.server.stop()
        running.server.start()
        with Client(running.settings) as client:
            assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
        running.is_back(restart)
        assert running.lines("broker away, trying until") == restart
    assert running.lines("Trying again") == running.lines("Deprecation") == running.lines("Traceback") == 0
    assert running.lines("mingle: searching") == 1


def test_a_worker_without_a_broker_waits_quietly(running: Running) -> None:
    running.server.stop()
    worker = psutil.Process(running.process.pid)
    before = sum(worker.cpu_times()[:2])
    threading.Event().wait(5)
    assert sum(worker.cpu_times()[:2]) - before < 1, "it must not spin"
    eventually(lambda: running.lines("broker away, trying until"), 60, "the line that says the broker is away")
    assert running.lines("broker away, trying until") == 1
    running.server.start()
    with Client(running.settings) as client:
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)


def test_a_worker_connects_anew_to_a_broker_that_is_full(running: Running) -> None:
    """Only consumers can empty it."""
    with redis.Redis.from_url(running.server.url) as broker:
        broker.config_set("maxmemory-policy", "noeviction")
        broker.config_set("maxmemory", "1")
        broker.client_kill_filter(_type="normal", skipme=True)
        running.is_back(1)
        assert running.lines("broker away, trying until") == 1
        assert running.lines("Connected to") == 2
        broker.config_set("maxmemory", "0")
    with Client(running.settings) as client:
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
    assert running.lines("broker away, trying until") == 1


def test_a_worker_that_lost_its_connection_hears_of_revocations_that_it_missed(running: Running) -> None:
    """Another worker knows them; here one of plain Celery, which answers as any."""
    url = headrace_url(running.settings.require_broker_url())
    revoked = "5f3a1c9e-6c1c-4f57-9a67-0c8f0a1c7e11"
    with redis.Redis.from_url(running.settings.require_broker_url()) as broker, Celery(broker=url) as app:
        knows = (
            "import sys; from celery import Celery; from celery.worker import state; "
            f"state.revoked.add({revoked!r}); "
            f"Celery('other', broker={url!r}).worker_main(['worker', '-n', 'other@here', '-P', 'solo', '-Q', 'other', "
            "'--without-mingle', '--without-gossip'])"
        )
        other = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", knows], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: app.control.inspect(["other@here"], timeout=1).ping(), 60, "the other worker")
            (node,) = eventually(
                lambda: [name for name in app.control.inspect(timeout=1).ping() or {} if name != "other@here"],
                60,
                "the worker's own answer",
            )
            me = broker.client_id()
            for each in broker.client_list():
                if each["laddr"] and int(each["id"]) != me and _belongs_to(each["addr"], running.process.pid):
                    broker.client_kill_filter(_id=each["id"])

            def knows_of_it() -> bool:
                return revoked in (app.control.inspect([node], timeout=1).revoked() or {}).get(node, [])

            eventually(knows_of_it, 60, "the worker to know of the revocation")
        finally:
            other.terminate()
            other.wait(30)
    assert running.lines("broker back after") <= 1


def _belongs_to(address: str, pid: int) -> bool:
    port = int(address.rpartition(":")[2])
    return any(each.laddr.port == port for each in psutil.Process(pid).net_connections("tcp"))
