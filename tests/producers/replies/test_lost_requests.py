"""Waiters for a request that the broker lost get an error; waiters for others are not disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr
from tests.chaos.wire.proxy import ProxyLoop
from tests.eventually import eventually
from tests.producers.peer import MODEL, Peer, store, succeeded
from tests.replicated_valkey import replicated

from headrace.contracts import Settings
from headrace.producers import AsyncClient, Client, DeadlineExceeded, RequestLost, ResultTimeout
from headrace.queueing import ClaimingConsumer, connect

X = np.arange(3, dtype=np.float32).reshape(1, 3)

#: Half of the lease of 60 s. A probe every 2 s and two looks a second apart find a loss far sooner.
TOLD_S = 30


def flush(url: str) -> None:
    with redis.Redis.from_url(url) as admin:
        admin.flushdb()


def fails_in_time(result: Callable[..., object]) -> None:
    with pytest.raises(RequestLost, match=r"submit it again, with the same request_id or with durable=True"):
        result(TOLD_S)


def count_lookups(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list to which each look into the store will add the ids that it asks for."""
    rows: Any = client._rows
    asked: list[list[str]] = []
    replies = rows.replies

    def note(ids: Iterable[str]) -> object:
        asked.append(list(ids))
        return replies(ids)

    monkeypatch.setattr(rows, "replies", note)
    return asked


def test_a_waiter_is_told_of_a_flush(client: Client, broker_url: str) -> None:
    handle = client.submit(MODEL, {"x": X})
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(handle.result)
        time.sleep(0.5)
        flush(broker_url)
        fails_in_time(waiter.result)
    assert (handle.status(), handle.done()) == ("lost", True)
    assert "lost" in repr(handle)
    fails_in_time(handle.result)


def test_whoever_begins_to_wait_after_a_flush_is_told(client: Client, broker_url: str) -> None:
    handles = client.submit_many(MODEL, {"x": np.repeat(X, 2000, axis=0)})
    flush(broker_url)
    fails_in_time(handles[0].result)
    # All were looked for together, so that nobody has to wait any more.
    for handle in handles:
        with pytest.raises(RequestLost) as caught:
            handle.result(timeout_s=0)
        assert caught.value.request_id == handle.id


def test_a_waiter_with_a_short_lease_is_told(settings: Settings, broker_url: str) -> None:
    with Client(settings.model_copy(update={"lease_s": 4.0})) as client, ThreadPoolExecutor(1) as pool:
        handle = client.submit(MODEL, {"x": X})
        waiter = pool.submit(handle.result)
        time.sleep(1.5)
        flush(broker_url)
        # That it is within the lease is in test_losses.py, by a clock of the test's own.
        assert isinstance(waiter.exception(TOLD_S), RequestLost)


def test_a_waiter_behind_many_messages_is_told(client: Client, broker_url: str) -> None:
    """A replica took over that has a full queue, but not the latest request."""
    client.submit_many(MODEL, {"x": np.repeat(X, 50_000, axis=0)})
    handle = client.submit(MODEL, {"x": X})
    with connect(broker_url) as broker, ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(handle.result)
        ends = (broker.lindex(f"infer.{MODEL}", at) for at in (0, -1))
        (message,) = (each for each in ends if handle.id.encode() in each)
        assert broker.lrem(f"infer.{MODEL}", 0, message) == 1
        broker.delete("headrace:epoch")
        fails_in_time(waiter.result)


def test_all_of_many_waiting_threads_are_told(client: Client, broker_url: str) -> None:
    handles = [client.submit(MODEL, {"x": X}) for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        waiters = [pool.submit(handle.result) for handle in handles]
        time.sleep(0.2)
        flush(broker_url)
        assert {type(waiter.exception(TOLD_S)) for waiter in waiters} == {RequestLost}


def test_tasks_are_told(settings: Settings, broker_url: str) -> None:
    async def run() -> list[object]:
        async with AsyncClient(settings) as client:
            handles = await client.submit_many(MODEL, {"x": np.repeat(X, 50, axis=0)})
            waiters = [asyncio.create_task(handle.result()) for handle in handles]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(flush, broker_url)
            async with asyncio.timeout(TOLD_S):
                failures = await asyncio.gather(*waiters, return_exceptions=True)
            assert {await handle.status() for handle in handles} == {"lost"}
            assert all(handle.done() for handle in handles)
            return list(failures)

    assert {type(failure) for failure in asyncio.run(run())} == {RequestLost}


def test_a_loop_over_done_ends(client: Client, broker_url: str) -> None:
    handle = client.submit(MODEL, {"x": X})
    assert not handle.done()
    flush(broker_url)
    eventually(handle.done, TOLD_S, "the end of a request that was lost")


def test_a_loop_over_done_ends_when_the_reply_got_lost(
    stored_client: Client, stored_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = stored_client.submit_many(MODEL, {"x": np.repeat(X, 20, axis=0)})
    asked = count_lookups(stored_client, monkeypatch)
    assert not any(handle.done() for handle in handles)
    for handle in handles:
        store(stored_settings.require_database_url(), handle.id, succeeded({"y": X}))
    eventually(lambda: all(handle.done() for handle in handles), TOLD_S, "the end of requests that have rows")
    # Not one query for each call, nor for each handle.
    assert len(asked) <= 3
    np.testing.assert_array_equal(handles[0].result(0)["y"], X)


def test_a_loop_over_done_in_a_task_ends_when_the_reply_got_lost(stored_settings: Settings) -> None:
    async def run() -> None:
        async with AsyncClient(stored_settings) as client, asyncio.timeout(TOLD_S):
            handle = await client.submit(MODEL, {"x": X})
            assert not handle.done()
            await asyncio.to_thread(store, stored_settings.require_database_url(), handle.id, succeeded({"y": X}))
            while not handle.done():
                await asyncio.sleep(0.01)
            np.testing.assert_array_equal((await handle.result(0))["y"], X)

    asyncio.run(run())


def test_a_loop_over_the_status_does_not_ask_the_store_each_time(
    stored_client: Client, stored_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = stored_client.submit(MODEL, {"x": X})
    asked = count_lookups(stored_client, monkeypatch)
    began, calls = time.monotonic(), 0
    while len(asked) < 15:
        assert handle.status() == "pending"
        calls += 1
    # A few soon after each other, then one each tenth of a second.
    assert len(asked) <= 8 + 10 * (time.monotonic() - began)
    assert calls > 2 * len(asked)
    store(stored_settings.require_database_url(), handle.id, succeeded({"y": X}))
    eventually(lambda: handle.status() == "succeeded", TOLD_S, "a look into the store")


def test_a_request_submitted_again_after_its_loss_is_answered(client: Client, peer: Peer, broker_url: str) -> None:
    handle = client.submit(MODEL, {"x": X}, request_id="again")
    flush(broker_url)
    fails_in_time(handle.result)
    again = client.submit(MODEL, {"x": X}, request_id="again")
    assert again.status() == "pending"
    (taken,) = peer.take()
    peer.reply(taken.inbox, taken.doubled())
    np.testing.assert_array_equal(again.result(30)["y"], X * 2)
    np.testing.assert_array_equal(handle.result(0)["y"], X * 2)


def test_a_reply_that_comes_after_all_counts(client: Client, peer: Peer, broker_url: str) -> None:
    """A worker had the request in its hands when the broker lost it."""
    handle = client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    flush(broker_url)
    fails_in_time(handle.result)
    peer.reply(taken.inbox, taken.doubled())
    np.testing.assert_array_equal(handle.result(30)["y"], X * 2)
    assert handle.status() == "succeeded"


def test_what_is_still_somewhere_is_waited_for(client: Client, broker_url: str) -> None:
    """The epoch alone is gone, so all is looked for and found: in the queue, held, delayed and dead."""
    with connect(broker_url) as broker:
        consumer = ClaimingConsumer(broker, lease_s=60)
        handles = client.submit_many(MODEL, {"x": np.repeat(X, 4, axis=0)})
        _, delayed, dead = consumer.claim({f"infer.{MODEL}": 3})
        broker.execute_command(*consumer.defer_command(delayed.tag, 60))
        consumer.dead_letter(dead.tag, "no reason")
        broker.delete("headrace:epoch")
        with ThreadPoolExecutor(4) as pool:
            waiters = [pool.submit(handle.result, 5) for handle in handles]
            assert {type(waiter.exception()) for waiter in waiters} == {ResultTimeout}
        assert {handle.status() for handle in handles} == {"pending"}


def test_what_has_ended_is_found_in_the_store(stored_client: Client, stored_settings: Settings) -> None:
    handles = stored_client.submit_many(MODEL, {"x": np.repeat(X, 2, axis=0)})
    store(stored_settings.require_database_url(), handles[0].id, succeeded({"y": X}))
    flush(stored_settings.require_broker_url())
    fails_in_time(handles[1].result)
    np.testing.assert_array_equal(handles[0].result(30)["y"], X)


def test_nothing_is_told_while_the_store_is_away(settings: Settings) -> None:
    """Whether the request has ended can't be known then."""
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")})
    with Client(away) as client:
        handle = client.submit(MODEL, {"x": X})
        flush(settings.require_broker_url())
        with pytest.raises(ResultTimeout):
            handle.result(timeout_s=6)


def test_a_status_after_the_lease_needs_no_other_reason(settings: Settings, peer: Peer) -> None:
    """The queue was deleted, which no identity shows."""
    with Client(settings.model_copy(update={"lease_s": 4.0})) as client:
        handles = client.submit_many(MODEL, {"x": np.repeat(X, 3, axis=0)})
        peer.take(2)
        assert [handle.status() for handle in handles] == ["pending"] * 3
        time.sleep(4.1)
        assert [handle.status() for handle in handles] == ["lost", "lost", "pending"]


def test_a_deadline_ends_a_wait_also_when_the_request_vanished(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X}, deadline_s=1.0)
    peer.take()
    with pytest.raises(DeadlineExceeded, match="is over, and it is neither with the broker nor in the store") as caught:
        handle.result(TOLD_S)
    assert caught.value.request_id == handle.id


def test_a_deadline_does_not_end_the_wait_for_a_request_that_is_still_there(client: Client) -> None:
    handle = client.submit(MODEL, {"x": X}, deadline_s=0.5)
    with pytest.raises(ResultTimeout):
        handle.result(timeout_s=8)


@pytest.fixture
def proxy_loop() -> Iterator[ProxyLoop]:
    with ProxyLoop() as loop:
        yield loop


def test_a_failover_to_a_replica_that_lags_loses_the_latest_only(
    proxy_loop: ProxyLoop, tmp_path: Path, settings: Settings
) -> None:
    with contextlib.ExitStack() as stack:
        url, fall_behind, fail_over = stack.enter_context(replicated(proxy_loop, tmp_path))
        client = stack.enter_context(Client(settings.model_copy(update={"broker_url": SecretStr(url)})))
        kept = client.submit(MODEL, {"x": X})
        fall_behind()
        latest = client.submit(MODEL, {"x": X})
        with ThreadPoolExecutor(2) as pool:
            waiters = [pool.submit(kept.result, 12), pool.submit(latest.result, TOLD_S)]
            time.sleep(0.2)
            fail_over()
            assert isinstance(waiters[1].exception(), RequestLost)
            assert isinstance(waiters[0].exception(), ResultTimeout)
        assert (kept.status(), latest.status()) == ("pending", "lost")
