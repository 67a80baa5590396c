"""Connections die silently: seconds until requests are served again, and until a worker that is told to end has ended.

All connections of a worker, a client or an ordinary Celery worker to one server are frozen, in one direction or both,
by a proxy that neither closes them nor lets anything through; new ones work. Then it is asked until it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.resilience_parts.stage import FAST, GRACE_S, READY_S, Stage, seconds_until_gone
from tests.chaos.wire.link import Direction
from tests.chaos.wire.proxy import Proxy

from headrace.contracts import BrokerUnavailable, HeadraceError, StoreUnavailable
from headrace.producers import AsyncClient, Client

#: Nobody waits longer than this for a frozen connection.
PATIENCE_S = 60.0
TERM_PATIENCE_S = GRACE_S + 30.0
CLOSE_S = 20.0

X = {"x": np.ones((1, 1), np.float32)}
DIRECTIONS = {"requests": Direction.REQUESTS, "replies": Direction.REPLIES, "both": Direction.BOTH}


def run(stage: Stage, _: Any) -> dict[str, Any]:
    """Measure all; `{whose connection, direction: seconds or None}`."""
    found: dict[str, Any] = {"served_again_s": {}, "ended_s": {}}
    ways: dict[str, Callable[[], Any]] = {
        "worker → Valkey": lambda: _of_worker(stage, stage.of_workers.valkey),
        "worker → Postgres": lambda: _of_worker(stage, stage.of_workers.postgres),
        "client → Valkey": lambda: _of_client(stage, stage.of_clients.valkey, _sync),
        "client → Postgres": lambda: _of_client(stage, stage.of_clients.postgres, _sync_stored),
        "async client → Valkey": lambda: _of_client(stage, stage.of_clients.valkey, _async),
        "plain worker → Valkey": lambda: _of_plain_worker(stage),
    }
    for name, open_way in ways.items():
        for direction, frozen in DIRECTIONS.items():
            with open_way() as (proxy, ask, process):
                served, ended = _measure(proxy, frozen, ask, process)
            found["served_again_s"][f"{name}, {direction}"] = served
            if process is not None:
                found["ended_s"][f"{name}, {direction}"] = ended
            print(f"  {name}, {direction}: served again {served}, ended {ended}", file=sys.stderr, flush=True)
    return found


def _measure(proxy: Proxy, direction: Direction, ask: Callable[[], Any], process: Any) -> tuple[Any, Any]:
    """Freeze all connections and ask until it is answered; freeze them again, and tell the process to end."""
    began = time.monotonic()
    proxy.freeze(direction, 1.0, random.Random(1))
    served = None
    while time.monotonic() < began + PATIENCE_S:
        try:
            _within(ask, began + PATIENCE_S - time.monotonic())
        except (BrokerUnavailable, StoreUnavailable, TimeoutError):
            time.sleep(0.1)
        except HeadraceError as exc:
            if exc.type != "ResultTimeout":
                raise
        else:
            served = round(time.monotonic() - began, 1)
            break
    if process is None:
        return served, None
    proxy.freeze(direction, 1.0, random.Random(1))
    gone = seconds_until_gone(process, TERM_PATIENCE_S)
    return served, None if gone is None else round(gone, 1)


def _within(work: Callable[[], Any], patience_s: float) -> None:
    """Do something that may wait without end. Raises TimeoutError, and what it raises."""
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def do() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 — whoever waits raises it
            ended.put(exc)
        else:
            ended.put(None)

    threading.Thread(target=do, daemon=True).start()
    try:
        error = ended.get(timeout=max(0.0, patience_s))
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error


@contextlib.contextmanager
def _of_worker(stage: Stage, proxy: Proxy) -> Iterator[Any]:
    with stage.worker() as process, _client(stage, _direct(stage)) as client:
        client.submit(FAST, X).result(timeout_s=READY_S)
        yield proxy, lambda: client.submit(FAST, X).result(timeout_s=PATIENCE_S), process


@contextlib.contextmanager
def _of_client(stage: Stage, proxy: Proxy, opened: Any) -> Iterator[Any]:
    with stage.worker(), opened(stage) as ask:
        ask(READY_S)
        yield proxy, lambda: ask(PATIENCE_S), None


@contextlib.contextmanager
def _client(stage: Stage, wires: dict[str, str]) -> Iterator[Client]:
    with _environment({**stage.environment(stage.of_clients), **wires}):
        client = Client()
    try:
        yield client
    finally:
        with contextlib.suppress(TimeoutError):
            _within(client.close, CLOSE_S)


def _direct(stage: Stage) -> dict[str, str]:
    return {
        "HEADRACE_BROKER_URL": stage.servers.valkey_database(1),
        "HEADRACE_DATABASE_URL": stage.servers.database_url,
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _sync(stage: Stage) -> Iterator[Callable[[float], Any]]:
    with _client(stage, {}) as client:
        yield lambda timeout_s: client.submit(FAST, X).result(timeout_s=timeout_s)


@contextlib.contextmanager
def _sync_stored(stage: Stage) -> Iterator[Callable[[float], Any]]:
    """Ask the store, as whoever lost its handle does."""
    with _client(stage, {}) as client:
        handle = client.submit(FAST, X)
        handle.result(timeout_s=READY_S)
        yield lambda _: client.get(handle.id)


@contextlib.contextmanager
def _async(stage: Stage) -> Iterator[Callable[[float], Any]]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run_there(work: Any, timeout_s: float) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)

    with _environment(stage.environment(stage.of_clients)):
        client = AsyncClient()
        run_there(client.predict(FAST, X, timeout_s=READY_S), READY_S)
    try:
        yield lambda timeout_s: run_there(client.predict(FAST, X, timeout_s=timeout_s), timeout_s + CLOSE_S)
    finally:
        with contextlib.suppress(HeadraceError, TimeoutError):
            run_there(client.close(), CLOSE_S)
        loop.call_soon_threadsafe(loop.stop)


@contextlib.contextmanager
def _of_plain_worker(stage: Stage) -> Iterator[Any]:
    """One that knows `headrace://` by its URL alone; tasks come by a URL that isn't frozen."""
    from benchmarks.resilience_parts import plain

    words = stage.folder / f"words-{uuid.uuid4()}"
    words.mkdir()
    more = {
        "PLAIN_BROKER_URL": f"headrace://127.0.0.1:{stage.of_workers.valkey.port}/2",
        "PLAIN_FOLDER": str(words),
    }
    command = ["-m", "celery", "-A", "benchmarks.resilience_parts.plain", "worker", "--pool", "prefork", "-c", "1"]
    plain.app.conf.broker_url = stage.servers.valkey_database(2).replace("redis", "headrace")
    with stage.process(command, {**stage.environment(stage.of_workers), **more}) as process:
        _leave(words, READY_S)
        yield stage.of_workers.valkey, lambda: _leave(words, PATIENCE_S), process


def _leave(folder: Path, patience_s: float) -> None:
    from benchmarks.resilience_parts import plain

    word = str(uuid.uuid4())
    plain.leave.delay(word)
    ends_at = time.monotonic() + patience_s
    while not (folder / word).exists():
        if time.monotonic() > ends_at:
            raise TimeoutError
        time.sleep(0.02)
