"""Durable requests with real workers: none is lost with the broker's data, and each has one effect."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import numpy as np
import psycopg
import pytest
import redis
from pydantic import SecretStr
from tests.chaos.wire.proxy import ProxyLoop
from tests.eventually import eventually
from tests.pgbouncer import PgBouncer
from tests.replicated_valkey import replicated
from tests.workers.conftest import running_worker

from headrace.contracts import Settings
from headrace.producers import Client, Handle, RequestLost

Start = Callable[..., AbstractContextManager[object]]


def x(number: int) -> dict[str, object]:
    return {"x": np.full((1, 4), number, np.float32)}


def count(settings: Settings, query: str) -> int:
    with psycopg.connect(settings.require_database_url()) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def test_a_durable_request_is_answered_and_its_row_goes(settings: Settings, start_worker: Start) -> None:
    with start_worker(), Client(settings) as client:
        assert (client.predict("double", x(3), timeout_s=60, durable=True)["y"] == 6).all()
        handles = client.submit_many("double", {"x": np.ones((3000, 4), np.float32)}, durable=True)
        assert all((handle.result(60)["y"] == 2).all() for handle in handles)
        assert count(settings, "SELECT count(*) FROM predictions") == 3001
        eventually(lambda: count(settings, "SELECT count(*) FROM headrace_requests") == 0, 60, "the rows to go")


def test_what_an_application_commits_is_sent_and_what_it_rolls_back_never(
    settings: Settings, start_worker: Start
) -> None:
    with start_worker(), Client(settings) as client, psycopg.connect(settings.require_database_url()) as connection:
        client.predict("double", x(0), timeout_s=60)
        # How it is sent, by the word of the commit, is in test_relay.py.
        for number in range(10):
            with connection.transaction():
                handle = client.submit("double", x(number), connection=connection)
            assert (handle.result(60)["y"] == 2 * number).all()
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            never = client.submit("double", x(0), connection=connection)
            raise ZeroDivisionError
        time.sleep(3)
        assert never.status() == "pending"
        assert client.get(never.id) is None


def test_what_a_client_did_not_send_before_it_died_is_sent(
    settings: Settings, start_worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> NoReturn:
        raise redis.ConnectionError("died")

    with start_worker(), Client(settings) as client:
        monkeypatch.setattr(client._submitter, "submit", die)
        handle = client.submit("double", x(4), durable=True)
        assert (handle.result(60)["y"] == 8).all()


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_durable_requests_work_through_a_pooler(
    settings: Settings, postgres_uri: str, tmp_path: Path, pool_mode: str
) -> None:
    with contextlib.ExitStack() as stack:
        pooler = stack.enter_context(PgBouncer(postgres_uri, pool_mode=pool_mode))
        url = pooler.url_of(settings.require_database_url())
        pooled = settings.model_copy(update={"database_url": SecretStr(url)})
        stack.enter_context(running_worker(pooled, tmp_path / "worker.log"))
        client = stack.enter_context(Client(pooled))
        assert (client.predict("double", x(3), timeout_s=60, durable=True)["y"] == 6).all()
        connection = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
        handle = client.submit("double", x(4), connection=connection)
        connection.commit()
        # No word of a commit comes through a pooler in transaction mode; the relay looks once a second.
        assert (handle.result(60)["y"] == 8).all()
        eventually(lambda: count(settings, "SELECT count(*) FROM headrace_requests") == 0, 60, "the rows to go")


def submit_under_load(client: Client, seconds: float, handles: dict[bool, list[Handle]]) -> None:
    """Submit several times as much as a worker can do meanwhile; not more, since all of it is waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for durable in (False, True):
            handles[durable].append(client.submit("slow", {"x": np.ones((4, 1), np.float32)}, durable=durable))
        time.sleep(0.03)


def outcomes(handles: list[Handle]) -> list[str]:
    """How each ended; a thread for each, so that every one of them waits."""

    def outcome(handle: Handle) -> str:
        try:
            handle.result(timeout_s=120)
        except RequestLost:
            return "lost"
        return "succeeded"

    with ThreadPoolExecutor(min(len(handles), 200)) as pool:
        return list(pool.map(outcome, handles))


def check_all_ended(settings: Settings, handles: dict[bool, list[Handle]]) -> None:
    assert set(outcomes(handles[True])) == {"succeeded"}
    plain = outcomes(handles[False])
    assert "lost" in plain
    assert "succeeded" in plain
    ids = [handle.id for handle in handles[True]]
    with psycopg.connect(settings.require_database_url()) as connection:
        row = connection.execute("SELECT count(*) FROM predictions WHERE id = ANY(%s::uuid[])", (ids,)).fetchone()
    assert row == (len(ids),)


def test_a_flush_under_load_loses_no_durable_request_and_every_other_waiter_is_told(
    settings: Settings, start_worker: Start
) -> None:
    handles: dict[bool, list[Handle]] = {False: [], True: []}
    with start_worker(), Client(settings) as client:
        client.predict("double", x(0), timeout_s=60)
        load = threading.Thread(target=submit_under_load, args=(client, 2.5, handles))
        load.start()
        time.sleep(2)
        with redis.Redis.from_url(settings.require_broker_url()) as admin:
            admin.flushdb()
        load.join()
        check_all_ended(settings, handles)


def test_a_failover_to_a_replica_that_lags_loses_no_durable_request(settings: Settings, tmp_path: Path) -> None:
    handles: dict[bool, list[Handle]] = {False: [], True: []}
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(ProxyLoop())
        url, fall_behind, fail_over = stack.enter_context(replicated(loop, tmp_path))
        settings = settings.model_copy(update={"broker_url": SecretStr(url)})
        stack.enter_context(running_worker(settings, tmp_path / "worker.log"))
        client = stack.enter_context(Client(settings))
        client.predict("double", x(0), timeout_s=60)
        load = threading.Thread(target=submit_under_load, args=(client, 3.0, handles))
        load.start()
        time.sleep(1)
        fall_behind()
        load.join()
        fail_over()
        check_all_ended(settings, handles)
