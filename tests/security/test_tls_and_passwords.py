"""TLS and passwords work, for Redis and Postgres, in every process, and the passwords are seen nowhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
from pydantic import SecretStr
from tests.security.conftest import SECRETS, Command, Guarded

from headrace.cli.demo.demo import DATA
from headrace.cli.stack.ports import free_port
from headrace.contracts import BrokerUnavailable, ConfigurationError, HeadraceError, Settings, StoreUnavailable
from headrace.producers import AsyncClient, Client
from headrace.results_store import StoreReader, check_schema

IMAGE = np.zeros((1, 1, 8, 8), np.float32)


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@dataclass(frozen=True)
class Running:
    """A worker and a Flower on the guarded servers."""

    settings: Settings
    worker: subprocess.Popen[bytes]
    flower: subprocess.Popen[bytes]
    flower_url: str
    logs: Path


def wait_for_page(url: str, process: subprocess.Popen[bytes], pattern: str) -> str:
    """Ask until the page says what is expected, or the process ends, or the test's time is over."""
    while True:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                page = str(answer.read().decode())
        except OSError:
            continue
        if re.search(pattern, page):
            return page


@pytest.fixture(scope="module")
def running(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    environment = {
        **guarded.environment,
        "HEADRACE_MODELS": str(DATA / "models"),
        "HEADRACE_HOME": str(folder),
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    port = free_port()
    command = [sys.executable, "-m", "headrace.cli"]
    with (folder / "worker.log").open("wb") as worker_log, (folder / "flower.log").open("wb") as flower_log:
        worker = subprocess.Popen(
            [*command, "worker", "--log-level", "debug"], env=environment, stdout=worker_log, stderr=subprocess.STDOUT
        )
        flower = subprocess.Popen(
            [*command, "flower", "--port", str(port)], env=environment, stdout=flower_log, stderr=subprocess.STDOUT
        )
    settings = Settings(
        broker_url=SecretStr(guarded.broker_url), database_url=SecretStr(guarded.database_url), models=DATA / "models"
    )
    yield Running(settings, worker, flower, f"http://127.0.0.1:{port}", folder)
    for process in (worker, flower):
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_requests_go_through_tls_with_passwords(running: Running) -> None:
    with Client(running.settings) as client:
        handle = client.submit("digits", {"image": IMAGE})
        assert handle.result(timeout_s=60)["label"].shape == (1,)
        row = client.get(handle.id)
    assert row is not None
    assert row.state == "succeeded"


async def _predict(settings: Settings) -> object:
    async with AsyncClient(settings) as client:
        return await client.predict("digits", {"image": IMAGE}, timeout_s=60)


def test_the_asyncio_client_speaks_tls_too(running: Running) -> None:
    import asyncio

    assert asyncio.run(_predict(running.settings))


def test_flower_shows_the_worker_and_no_password(running: Running) -> None:
    pages = [
        wait_for_page(f"{running.flower_url}/api/workers?refresh=1", running.flower, r"headrace@"),
        wait_for_page(f"{running.flower_url}/workers", running.flower, "headrace@"),
    ]
    found = re.search(r"headrace@[\w.-]+", pages[0])
    assert found
    worker_page = wait_for_page(f"{running.flower_url}/worker/{found.group()}", running.flower, "broker_url")
    pages += [worker_page, wait_for_page(f"{running.flower_url}/broker", running.flower, "infer.digits")]
    assert [secrets_in(page) for page in pages] == [[]] * len(pages)


def test_inspect_conf_shows_no_password(running: Running) -> None:
    from celery import Celery

    from headrace.queueing import headrace_url

    with Celery(broker=headrace_url(running.settings.require_broker_url()), set_as_current=False) as app:
        (conf,) = app.control.inspect(timeout=10, limit=1).conf(with_defaults=True).values()  # type: ignore[union-attr]
    assert secrets_in(str(conf)) == []
    assert "broker_url" in conf


def test_no_process_shows_a_password_to_ps(running: Running) -> None:
    processes = [
        each
        for root in (running.worker, running.flower)
        for each in (psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True))
    ]
    assert len(processes) >= 3
    assert [secrets_in(" ".join(process.cmdline())) for process in processes] == [[]] * len(processes)


def test_no_command_shows_a_password(running: Running, guarded: Guarded, headrace: Command) -> None:
    urls = {"HEADRACE_BROKER_URL": guarded.broker_url, "HEADRACE_DATABASE_URL": guarded.database_url}
    for words in (("queue", "stats", "--json"), ("store", "stats", "--json"), ("store", "migrate", "--json")):
        done = headrace(*words, **urls)
        assert done.returncode == 0, done.stderr
        assert secrets_in(done.stdout + done.stderr) == []


def test_the_logs_of_worker_and_flower_hold_no_password(running: Running) -> None:
    """Runs last of those that use the two: their logs then hold start, requests, inspections and pages."""
    logs = [(running.logs / name).read_text() for name in ("worker.log", "flower.log")]
    assert all(logs)
    assert [secrets_in(log) for log in logs] == [[], []]


# -- what does not work says why, without the password ---


def changed(url: str, old: str, new: str) -> str:
    assert old in url
    return url.replace(old, new)


BAD_BROKERS: dict[str, tuple[Callable[[str], str], type[Exception]]] = {
    "wrong password": (lambda url: changed(url, "Brk9", "Brk9x"), BrokerUnavailable),
    "unknown authority": (lambda url: url.partition("&ssl_ca_certs")[0], BrokerUnavailable),
    "nobody there": (lambda url: re.sub(r"localhost:\d+", "localhost:1", url), BrokerUnavailable),
    "no TLS": (lambda url: changed(url, "rediss:", "redis:").partition("?")[0], BrokerUnavailable),
    "unquoted #": (lambda url: changed(url, "%23", "#"), ConfigurationError),
    "unquoted /": (lambda url: changed(url, "%2F", "/"), ConfigurationError),
    "unquoted ?": (lambda url: changed(url, "%3F", "?"), ConfigurationError),
    "no such scheme": (lambda url: changed(url, "rediss:", "https:"), ConfigurationError),
    "no scheme": (lambda url: url.partition("://")[2], ConfigurationError),
}

BAD_STORES: dict[str, tuple[Callable[[str], str], type[Exception]]] = {
    "wrong password": (lambda url: changed(url, "Db7", "Db7x"), StoreUnavailable),
    "unknown authority": (lambda url: re.sub("&sslrootcert=[^&]*", "", url), StoreUnavailable),
    "nobody there": (lambda url: re.sub(r"localhost:\d+", "localhost:1", url), StoreUnavailable),
    "no TLS": (lambda url: changed(url, "verify-full", "disable"), StoreUnavailable),
    "unquoted /": (lambda url: changed(url, "%2F", "/"), HeadraceError),
    "unquoted @": (lambda url: changed(url, "%40", "@"), HeadraceError),
    "broken quoting": (lambda url: changed(url, "%2F", "%2"), ConfigurationError),
    "no such option": (lambda url: url + "&nonsense=1", ConfigurationError),
    "no scheme": (lambda url: url.partition("://")[2], ConfigurationError),
}


def texts_of(error: BaseException) -> str:
    """All that a traceback would print of an error: itself and what it came from."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        parts.append(f"{seen!r} {seen}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(parts)


@pytest.mark.parametrize("name", BAD_BROKERS)
def test_a_broker_that_does_not_open_is_named_without_its_password(guarded: Guarded, name: str) -> None:
    change, error = BAD_BROKERS[name]
    settings = Settings(broker_url=SecretStr(change(guarded.broker_url)), models=DATA / "models")

    def submit() -> None:
        with Client(settings) as client:
            client.submit("digits", {"image": IMAGE})

    with pytest.raises(error) as caught:
        submit()
    assert secrets_in(texts_of(caught.value)) == []


@pytest.mark.parametrize("name", BAD_BROKERS)
def test_the_asyncio_client_names_such_a_broker_likewise(guarded: Guarded, name: str) -> None:
    import asyncio

    change, error = BAD_BROKERS[name]
    settings = Settings(broker_url=SecretStr(change(guarded.broker_url)), models=DATA / "models")
    with pytest.raises(error) as caught:
        asyncio.run(_predict(settings))
    assert secrets_in(texts_of(caught.value)) == []


@pytest.mark.parametrize("name", BAD_STORES)
def test_a_store_that_does_not_open_is_named_without_its_password(guarded: Guarded, name: str) -> None:
    change, error = BAD_STORES[name]
    with pytest.raises(error) as caught:
        check_schema(change(guarded.database_url))
    assert secrets_in(texts_of(caught.value)) == []


@pytest.mark.parametrize("name", ["wrong password", "unquoted #", "unquoted /", "no scheme"])
def test_a_worker_that_can_not_start_says_so_without_passwords(guarded: Guarded, headrace: Command, name: str) -> None:
    change, _ = BAD_BROKERS[name]
    done = headrace(
        "worker",
        HEADRACE_BROKER_URL=change(guarded.broker_url),
        HEADRACE_DATABASE_URL=guarded.database_url,
        HEADRACE_MODELS=str(DATA / "models"),
    )
    assert done.returncode == 1
    assert secrets_in(done.stdout + done.stderr) == []
    assert "HEADRACE_BROKER_URL" in done.stderr or "broker URL" in done.stderr


def test_settings_show_no_password_however_they_are_printed(guarded: Guarded) -> None:
    settings = Settings(broker_url=SecretStr(guarded.broker_url), database_url=SecretStr(guarded.database_url))
    printed = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
        repr(vars(settings)),
    ]
    assert [secrets_in(text) for text in printed] == [[]] * len(printed)


def test_a_password_in_the_settings_is_not_repeated_when_another_setting_is_wrong(
    guarded: Guarded, headrace: Command
) -> None:
    done = headrace("queue", "stats", HEADRACE_BROKER_URL=guarded.broker_url, HEADRACE_LEASE_S="soon")
    assert done.returncode == 1
    assert "HEADRACE_LEASE_S" in done.stderr
    assert secrets_in(done.stderr) == []


def test_a_store_reader_shows_no_password(guarded: Guarded) -> None:
    with StoreReader(guarded.database_url) as reader:
        assert reader.get("nothing") is None
        assert secrets_in(repr(reader) + repr(vars(reader))) == []


def test_the_connection_to_postgres_is_encrypted(guarded: Guarded) -> None:
    with psycopg.connect(guarded.database_url) as connection:
        assert connection.pgconn.ssl_in_use
    assert os.environ.get("PGSSLMODE") is None
