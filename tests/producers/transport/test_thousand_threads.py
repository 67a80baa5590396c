"""A thousand threads, or tasks, on one client: all are served over a few connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis
from tests.producers.peer import MODEL, Peer

from headrace.contracts import Settings
from headrace.producers import AsyncClient, BrokerUnavailable, Client, ResultTimeout
from headrace.producers.transport.call_limit import CALLS, CallLimit

COUNT = 1000


def at_once(work: Callable[[int], object]) -> list[BaseException | None]:
    """Run `work(number)` in a thousand threads that begin together; give what each raised."""
    start = threading.Barrier(COUNT)

    def run(number: int) -> object:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(COUNT) as pool:
        return [future.exception() for future in [pool.submit(run, number) for number in range(COUNT)]]


def connections(url: str) -> int:
    with redis.Redis.from_url(url) as admin:
        return len(admin.client_list(_type="normal"))


def x(number: int) -> dict[str, object]:
    return {"x": np.full((1, 3), number, np.float32)}


def test_a_thousand_threads_are_served_over_a_few_connections(client: Client, worker: Peer, broker_url: str) -> None:
    before = connections(broker_url)

    def ask(number: int) -> None:
        assert (client.predict(MODEL, x(number), timeout_s=60)["y"] == 2 * number).all()

    assert at_once(ask) == [None] * COUNT
    assert connections(broker_url) - before <= CALLS + 2


def test_a_thousand_threads_that_wait_in_vain_ask_once_who_serves(
    client: Client, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def is_served(*_: object) -> None:
        asked.append(1)
        time.sleep(1.0)

    monkeypatch.setattr("headrace.producers.transport.serving.is_served", is_served)
    failures = at_once(lambda number: client.predict(MODEL, x(number), timeout_s=3))
    assert {type(failure) for failure in failures} == {ResultTimeout}
    assert {str(failure) for failure in failures if "no worker serves model 'digits'" not in str(failure)} == set()
    # They time out over the seconds that starting them took; each question is asked for a second.
    assert len(asked) < COUNT / 10


def test_a_thousand_tasks_are_served_over_a_few_connections(settings: Settings, worker: Peer, broker_url: str) -> None:
    before = connections(broker_url)

    async def run() -> int:
        async with AsyncClient(settings) as client:

            async def ask(number: int) -> bool:
                return bool(((await client.predict(MODEL, x(number), timeout_s=60))["y"] == 2 * number).all())

            assert all(await asyncio.gather(*map(ask, range(COUNT))))
            return connections(broker_url)

    assert asyncio.run(run()) - before <= 4


def test_a_thousand_tasks_that_wait_in_vain_ask_who_serves_over_a_few_connections(
    settings: Settings, broker_url: str
) -> None:
    before, seen = connections(broker_url), [0]

    async def run() -> list[object]:
        async with AsyncClient(settings) as client:
            tasks = [asyncio.create_task(client.predict(MODEL, x(number), timeout_s=0.5)) for number in range(COUNT)]
            while not all(task.done() for task in tasks):
                seen.append(await asyncio.to_thread(connections, broker_url))
                await asyncio.sleep(0.01)
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    failures = asyncio.run(run())
    assert {type(failure) for failure in failures} == {ResultTimeout}
    assert max(seen) - before <= 10


def test_a_turn_that_does_not_come_is_told() -> None:
    limit = CallLimit(calls=1, wait_s=0.05)
    with limit, pytest.raises(BrokerUnavailable, match=r"no connection was free within 0\.05 s"), limit:
        pass
    with limit:
        pass
