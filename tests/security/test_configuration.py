"""Configurations that are wrong or odd: each is refused with a remedy, or harmless."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
import redis
from pydantic import SecretStr
from tests.eventually import eventually
from tests.security.conftest import Command

from headrace.cli.demo.demo import DATA
from headrace.contracts import ConfigurationError, Settings, load_settings
from headrace.producers import Client
from headrace.queueing import dead_letters
from headrace.results_store import StoreReader, check_schema
from headrace.results_store.schema import REVISIONS, VERSION_TABLE

IMAGE = np.zeros((1, 1, 8, 8), np.float32)

#: A worker whose wall clock is two hours off from its first moment on.
WRONG_CLOCK = """
import sys, time
right, shift_s = time.time, float(sys.argv.pop(1))
time.time = lambda: right() + shift_s
from celery.__main__ import main
main()
"""


@pytest.fixture
def settings(broker_url: str, migrated_url: str, tmp_path: Path) -> Settings:
    return Settings(
        broker_url=SecretStr(broker_url),
        database_url=SecretStr(migrated_url),
        models=DATA / "models",
        home=tmp_path,
        lease_s=2.0,
    )


StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker process under a name of the caller's; it is stopped after the test."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {
        **os.environ,
        "HEADRACE_BROKER_URL": settings.require_broker_url(),
        "HEADRACE_DATABASE_URL": settings.require_database_url(),
        "HEADRACE_MODELS": str(settings.models),
        "HEADRACE_LEASE_S": str(settings.lease_s),
    }

    def start(name: str, *program: str) -> subprocess.Popen[bytes]:
        words = ["-A", "headrace.workers.app", "worker", "--hostname", name, "--pool", "solo", "--loglevel", "INFO"]
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *(program or ("-m", "celery")), *words],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        process.wait(30)


@pytest.fixture
def headrace_worker(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Start `headrace worker` with more variables; gives its log. It is stopped after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> Path:
        log = tmp_path / f"supervised-{len(started)}.log"
        own = {
            "HEADRACE_BROKER_URL": settings.require_broker_url(),
            "HEADRACE_DATABASE_URL": settings.require_database_url(),
            "HEADRACE_MODELS": str(settings.models),
            "HEADRACE_HOME": str(tmp_path),
        }
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "headrace.cli", "worker", "--log-level", "info"],
                    env={**os.environ, **own, **environment},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
        return log

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        assert process.wait(30) == 0


def wait_for_workers(folder: Path, count: int) -> None:
    """Wait until this many workers say that they are ready. A ping would not do: it expires by the wall clock."""

    def are_ready() -> bool:
        return sum(" ready." in log.read_text() for log in folder.glob("worker-*.log")) >= count

    eventually(are_ready, 60, f"{count} workers")


def test_two_workers_of_one_name_both_serve(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    first, _ = start_worker("twin@here"), start_worker("twin@here")
    wait_for_workers(tmp_path, 2)
    with Client(settings) as client:
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
        handles = client.submit_many("digits", {"image": np.repeat(IMAGE, 500, axis=0)})
        first.send_signal(signal.SIGKILL)
        # What the killed one held comes back to its namesake: they share a name, and no lease.
        assert all(handle.result(timeout_s=60) for handle in handles)
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT worker) FROM predictions").fetchone()
    assert rows == (501, 1)


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_worker_whose_clock_is_wrong_keeps_its_leases_and_serves(
    settings: Settings, start_worker: StartWorker, tmp_path: Path, hours: int
) -> None:
    """Leases live by the server's clock, so nobody takes from a worker what it works on."""
    start_worker("wrong@here", "-c", WRONG_CLOCK, str(hours * 3600))
    start_worker("right@here")
    wait_for_workers(tmp_path, 2)
    with Client(settings) as client:
        handles = client.submit_many("digits", {"image": np.repeat(IMAGE, 300, axis=0)})
        assert all(handle.result(timeout_s=60) for handle in handles)
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute("SELECT count(*), max(attempts) FROM predictions").fetchone()
    assert rows == (300, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "0.9"),
        ("LEASE_S", "1e300"),
        ("GRACE_S", "1e300"),
        ("INBOX_TTL_S", str(10**18)),
        ("CELERY_RESULT_TTL_S", str(10**18)),
        ("MAX_PAYLOAD_BYTES", str(10**10)),
        ("RETENTION_DAYS", str(10**9)),
    ],
)
def test_a_setting_that_could_not_work_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"HEADRACE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"HEADRACE_{name} is wrong: .*docs/settings.md"):
        load_settings()


def test_the_shortest_lease_is_renewed_before_it_ends(settings: Settings, start_worker: StartWorker) -> None:
    shortest = next(limit.ge for limit in Settings.model_fields["lease_s"].metadata if hasattr(limit, "ge"))
    assert shortest >= 1
    start_worker("quick@here")
    with Client(settings) as client:
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)


CLOCK_THAT_JUMPS = """
import sys, time
right, jumps_at, shift_s = time.time, time.monotonic() + 5, 0.0
def jumping():
    # Forward by two hours, back by two, and so on, as often as it is asked after the first seconds.
    global shift_s
    if time.monotonic() > jumps_at:
        shift_s = 7200.0 if shift_s <= 0 else -7200.0
    return right() + shift_s
time.time = jumping
from celery.__main__ import main
main()
"""


def test_a_clock_that_jumps_while_the_worker_runs_loses_and_doubles_nothing(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker("jumping@here", "-c", CLOCK_THAT_JUMPS)
    wait_for_workers(tmp_path, 1)
    with Client(settings) as client:
        for _ in range(3):
            handles = client.submit_many("digits", {"image": np.repeat(IMAGE, 300, axis=0)})
            assert all(handle.result(timeout_s=60) for handle in handles)
            threading.Event().wait(settings.lease_s)  # held through a lease, whatever the clock says
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute("SELECT count(*), max(attempts) FROM predictions").fetchone()
    assert rows == (900, 1)


def test_garbage_in_a_queue_is_buried_and_those_behind_it_are_served(
    settings: Settings, start_worker: StartWorker
) -> None:
    garbage = [b"", b"garbage", b"\x00\xff", b"[]", b"{}", b'{"body": 1}', b"null", b"1e999", b'"x"' * 1000]
    with redis.Redis.from_url(settings.require_broker_url()) as broker, Client(settings) as client:
        broker.lpush("infer.digits", *garbage)
        handles = client.submit_many("digits", {"image": np.repeat(IMAGE, 50, axis=0)})
        start_worker("cleaner@here")
        assert all(handle.result(timeout_s=60) for handle in handles)
        assert len(list(dead_letters(broker))) == len(garbage)
        assert broker.llen("infer.digits") == 0


@pytest.mark.parametrize(
    "name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "BROKER_URL"]
)
def test_celerys_own_variables_lead_no_worker_to_another_broker(
    settings: Settings, headrace_worker: Callable[..., Path], name: str
) -> None:
    elsewhere = "redis://127.0.0.1:1/0"
    log = headrace_worker(**{name: elsewhere, "CELERY_RESULT_BACKEND": elsewhere, "CELERY_LOADER": "default"})
    with Client(settings) as client:
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
    text = log.read_text()
    assert "127.0.0.1:1/" not in text
    assert f"ignoring {'CELERY_' if name == 'BROKER_URL' else ''}{name}: HEADRACE_BROKER_URL" in text
    assert "ignoring CELERY_RESULT_BACKEND: " in text


def revise(url: str, revision: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = %s", [revision])


def test_a_store_that_was_never_migrated_is_refused_by_worker_and_client(
    broker_url: str, database_url: str, headrace: Command
) -> None:
    urls = {"HEADRACE_BROKER_URL": broker_url, "HEADRACE_DATABASE_URL": database_url}
    for words in (("worker",), ("store", "stats")):
        done = headrace(*words, **urls, HEADRACE_MODELS=str(DATA / "models"))
        assert done.returncode == 1
        assert "headrace store migrate" in done.stderr
        assert done.stderr.count("\n") == 1
    with StoreReader(database_url) as reader, pytest.raises(ConfigurationError, match="headrace store migrate"):
        reader.get("x")


def test_a_store_of_an_older_release_is_refused_until_it_is_migrated(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.results_store.migration.REVISIONS", (*REVISIONS, "9999"))
    with pytest.raises(
        ConfigurationError, match=f"has schema {REVISIONS[-1]}, this release needs 9999.*headrace store migrate"
    ):
        check_schema(migrated_url)


def test_a_worker_refuses_a_store_of_an_older_release(broker_url: str, migrated_url: str, tmp_path: Path) -> None:
    newer = (
        "import headrace.results_store.migration as m; m.REVISIONS = (*m.REVISIONS, '9999');"
        "from headrace.cli.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", newer, "worker"],
        env={
            **os.environ,
            "HEADRACE_BROKER_URL": broker_url,
            "HEADRACE_DATABASE_URL": migrated_url,
            "HEADRACE_MODELS": str(DATA / "models"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "this release needs 9999" in done.stderr
    assert "headrace store migrate" in done.stderr


def test_a_store_of_a_newer_release_is_refused_by_worker_and_migration(
    broker_url: str, migrated_url: str, headrace: Command
) -> None:
    revise(migrated_url, "9999")
    urls = {"HEADRACE_BROKER_URL": broker_url, "HEADRACE_DATABASE_URL": migrated_url}
    for words in (("worker",), ("store", "migrate")):
        done = headrace(*words, **urls, HEADRACE_MODELS=str(DATA / "models"))
        assert done.returncode == 1
        assert "9999, newer than" in done.stderr
        assert "headrace store migrate" in done.stderr
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == ("9999",)


def test_a_message_goes_to_the_worker_that_has_its_model(
    settings: Settings, start_worker: StartWorker, headrace_worker: Callable[..., Path], tmp_path: Path
) -> None:
    start_worker("only-digits@here")
    wait_for_workers(tmp_path, 1)
    other = tmp_path / "other-models"
    shutil.copytree(DATA / "models" / "digits", other / "numerals")
    for manifest in other.rglob("model.toml"):
        manifest.write_text(manifest.read_text().replace('name = "digits"', 'name = "numerals"', 1))
    with Client(settings.model_copy(update={"models": other})) as client:
        handle = client.submit("numerals", {"image": IMAGE})
        headrace_worker(HEADRACE_MODELS=str(other))
        assert handle.result(timeout_s=60)
        row = client.get(handle.id)
    assert row is not None
    assert row.attempts == 1
    assert str(row.worker).startswith("headrace@")


def test_a_message_for_a_model_that_no_worker_has_waits(settings: Settings, start_worker: StartWorker) -> None:
    start_worker("only-digits@here")
    elsewhere = settings.model_copy(update={"models": Path("nowhere")})
    with Client(elsewhere) as client:
        client.submit("unknown", {"x": np.ones((1, 4), np.float32)})
        assert client.predict("digits", {"image": IMAGE}, timeout_s=60)
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        assert broker.llen("infer.unknown") == 1
