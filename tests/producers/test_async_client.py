"""The asyncio client gives what the blocking one gives, and never stops the loop or a request by accident."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from tests.producers.peer import MODEL, Peer, store, succeeded

from headrace.contracts import Settings
from headrace.contracts.message import Reply, queue_name
from headrace.producers import (
    AsyncClient,
    BrokerUnavailable,
    Cancelled,
    ConfigurationError,
    InvalidRequest,
    PartlySubmitted,
    QueueFull,
    ResultTimeout,
    SignatureMismatch,
)
from headrace.producers.replies import pending
from headrace.producers.transport.serving import is_served_async
from headrace.queueing import ClaimingConsumer

X = np.arange(3, dtype=np.float32).reshape(1, 3)


def run(settings: Settings, main: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with AsyncClient(settings) as client:
            await main(client)

    asyncio.run(whole())


def test_await_gives_the_result(settings: Settings, worker: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        np.testing.assert_array_equal((await handle.result(timeout_s=30))["y"], X * 2)
        assert (handle.done(), await handle.status()) == (True, "succeeded")
        assert handle.id in repr(handle)

    run(settings, main)


def test_many_tasks_share_one_client(settings: Settings, worker: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        values = [np.full((1, 3), number, np.float32) for number in range(500)]
        results = await asyncio.gather(*(client.predict(MODEL, {"x": value}) for value in values))
        assert all((result["y"] == 2 * number).all() for number, result in enumerate(results))

    run(settings, main)


def test_each_row_becomes_a_request(settings: Settings, worker: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        rows = np.arange(2000 * 3, dtype=np.float32).reshape(2000, 3)
        handles = await client.submit_many(MODEL, {"x": rows})
        results = [(await handle.result(60))["y"] for handle in handles]
        np.testing.assert_array_equal(np.concatenate(results), rows * 2)

    run(settings, main)


def test_an_error_reply_raises_its_class(settings: Settings, broker_url: str) -> None:
    def refuse(taken: object) -> Reply:
        return Reply(id="r1", state="failed", error_type="SignatureMismatch", error_message="no")

    async def main(client: AsyncClient) -> None:
        with pytest.raises(SignatureMismatch, match="no") as caught:
            await (await client.submit(MODEL, {"x": X}, request_id="r1")).result(30)
        assert caught.value.request_id == "r1"

    with Peer(broker_url, refuse):
        run(settings, main)


def test_a_timeout_and_a_cancelled_task_let_the_request_go_on(settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        for timeout_s in (0, 0.05):
            with pytest.raises(ResultTimeout, match=handle.id):
                await handle.result(timeout_s)
        task = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (taken,) = await asyncio.to_thread(peer.take)
        peer.reply(taken.inbox, taken.doubled())
        np.testing.assert_array_equal((await handle.result(30))["y"], X * 2)

    run(settings, main)


def test_a_timeout_says_when_no_worker_serves_the_model(
    settings: Settings, peer: Peer, serving: Callable[[str], ClaimingConsumer]
) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        with pytest.raises(ResultTimeout, match="no worker serves model 'digits' at present"):
            await handle.result(0.01)
        serving(queue_name(MODEL))
        for timeout_s in (0, 0.01):
            with pytest.raises(ResultTimeout, match="goes on: wait again"):
                await handle.result(timeout_s)
        assert await client.is_served(MODEL)

    run(settings, main)


def test_where_nobody_can_say_who_serves_a_model_is_taken_to_be_served() -> None:
    assert asyncio.run(is_served_async("redis://127.0.0.1:1/0", MODEL))


def test_dropped_handles_end_the_reader(settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        (taken,) = await asyncio.to_thread(peer.take)
        del handle
        gc.collect()
        assert len(client._inbox._pending) == 0
        reader = client._inbox._reader
        assert reader is not None
        peer.reply(taken.inbox, taken.doubled())
        await asyncio.wait_for(reader, 30)

    run(settings, main)


def test_a_lost_reply_is_found_in_the_store(
    stored_settings: Settings, database_url: str, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "LOOKUP_EVERY_S", 0.2)

    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        waiter = asyncio.create_task(handle.result())
        await asyncio.to_thread(store, database_url, handle.id, succeeded({"y": X * 2}))
        np.testing.assert_array_equal((await asyncio.wait_for(waiter, 30))["y"], X * 2)
        row = await client.get(handle.id)
        assert row is not None

    run(stored_settings, main)


def test_a_cut_connection_makes_waiters_look_into_the_store(
    stored_settings: Settings, database_url: str, peer: Peer
) -> None:
    async def main(client: AsyncClient) -> None:
        handles = await client.submit_many(MODEL, {"x": np.repeat(X, 3, axis=0)})
        waiters = [asyncio.create_task(handle.result()) for handle in handles]
        for handle in handles:
            await asyncio.to_thread(store, database_url, handle.id, succeeded({"y": X * 2}))
        await asyncio.to_thread(peer.client.client_kill_filter, _type="normal", skipme=True)
        for waiter in waiters:
            np.testing.assert_array_equal((await asyncio.wait_for(waiter, 30))["y"], X * 2)

    run(stored_settings, main)


def test_outputs_too_large_for_a_reply_are_read_from_the_store(
    stored_settings: Settings, database_url: str, peer: Peer
) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        (taken,) = await asyncio.to_thread(peer.take)
        await asyncio.to_thread(store, database_url, handle.id, succeeded({"y": X * 3}))
        peer.reply(taken.inbox, Reply(id=taken.id, state="succeeded", stored=True))
        np.testing.assert_array_equal((await handle.result(30))["y"], X * 3)

    run(stored_settings, main)


def test_cancel_resolves_the_handle(stored_settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        assert await handle.status() == "pending"
        waiter = asyncio.create_task(handle.result())
        assert await handle.cancel()
        assert await handle.cancel()
        with pytest.raises(Cancelled):
            await asyncio.wait_for(waiter, 30)
        assert await handle.status() == "cancelled"

    run(stored_settings, main)


def test_without_a_database_only_the_store_is_missing(settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        with pytest.raises(ConfigurationError):
            await handle.cancel()
        with pytest.raises(ConfigurationError):
            await client.get("x")

    run(settings, main)


def test_a_full_queue_refuses(settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        with pytest.raises(PartlySubmitted) as caught:
            await client.submit_many(MODEL, {"x": np.repeat(X, 9, axis=0)})
        assert len(caught.value.handles) == 5
        with pytest.raises(QueueFull):
            await client.submit(MODEL, {"x": X})

    run(settings.model_copy(update={"queue_limit": 5}), main)
    assert peer.client.llen(queue_name(MODEL)) == 5


def test_a_closed_client_answers_its_waiters(settings: Settings, peer: Peer) -> None:
    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ResultTimeout, match="closed"):
            await waiter
        with pytest.raises(InvalidRequest, match="closed"):
            await client.submit(MODEL, {"x": X})

    run(settings, main)


def test_a_client_serves_one_loop_after_another_but_not_two_at_once(settings: Settings, worker: Peer) -> None:
    client = AsyncClient(settings)

    async def once() -> None:
        await client.predict(MODEL, {"x": X})

    async def use_and_close() -> None:
        await once()
        with pytest.raises(InvalidRequest, match="event loop"):
            await asyncio.to_thread(asyncio.run, once())
        await client.close()

    asyncio.run(use_and_close())


def test_a_broker_that_is_down_is_one_clear_line_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://user:s3cret@127.0.0.1:{unused.getsockname()[1]}/0"

        async def main(client: AsyncClient) -> None:
            with pytest.raises(BrokerUnavailable, match="HEADRACE_BROKER_URL") as caught:
                await client.predict(MODEL, {"x": X})
            assert "s3cret" not in caught.value.message

        run(Settings(broker_url=url), main)


def test_a_broker_that_stays_away_ends_every_wait(
    settings: Settings, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.producers.replies.reading.PATIENCE_S", 0.0)

    async def main(client: AsyncClient) -> None:
        handle = await client.submit(MODEL, {"x": X})
        key = client._inbox.key
        peer.client.set(key, "no list")
        waiters = [asyncio.create_task(handle.result()) for _ in range(3)]
        await asyncio.to_thread(peer.client.client_kill_filter, _type="normal", skipme=True)
        for waiter in waiters:
            with pytest.raises(BrokerUnavailable, match="Redis or Valkey"):
                await asyncio.wait_for(waiter, 30)

    run(settings, main)
