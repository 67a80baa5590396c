"""Tasks that submit at the same time share calls, and each learns of its own messages only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import redis
import redis.asyncio

from headrace.contracts.errors import BrokerUnavailable
from headrace.producers.transport.async_sender import AsyncSender
from headrace.queueing.submission import AsyncSubmitter

QUEUE = "infer.digits"


class Counting(AsyncSubmitter):
    """Counts the calls that a sender makes."""

    calls = 0

    async def submit(self, queue: str, priority: int, messages: Sequence[bytes], limit: int = 0) -> int:
        self.calls += 1
        return await super().submit(queue, priority, messages, limit)


def run(url: str, limit: int, main: Callable[[AsyncSender, Counting], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            submitter = Counting(client)
            sender = AsyncSender(submitter, limit)
            await main(sender, submitter)
            await sender.close()
            assert not sender._lines

    asyncio.run(whole())


def test_what_is_submitted_at_once_goes_in_one_call_and_in_order(broker_url: str) -> None:
    async def main(sender: AsyncSender, submitter: Counting) -> None:
        sends = [sender.submit(QUEUE, 0, [b"%d" % number]) for number in range(1000)]
        assert await asyncio.gather(*sends) == [1] * 1000
        assert submitter.calls == 1

    run(broker_url, 0, main)
    with redis.Redis.from_url(broker_url) as client:
        assert client.lrange(QUEUE, 0, -1) == [b"%d" % number for number in reversed(range(1000))]


def test_each_task_learns_how_many_of_its_own_were_accepted(broker_url: str) -> None:
    async def main(sender: AsyncSender, submitter: Counting) -> None:
        sends = [sender.submit(QUEUE, 0, [b"m"] * count) for count in (3, 4, 2)]
        assert await asyncio.gather(*sends) == [3, 2, 0]

    run(broker_url, 5, main)


def test_a_large_batch_does_not_delay_the_small_ones_behind_it_into_its_call(broker_url: str) -> None:
    async def main(sender: AsyncSender, submitter: Counting) -> None:
        sends = [sender.submit(QUEUE, 0, [b"m"] * count) for count in (10_000, 1, 1)]
        assert await asyncio.gather(*sends) == [10_000, 1, 1]
        assert submitter.calls == 2

    run(broker_url, 0, main)


def test_every_task_learns_that_the_broker_refused(broker_url: str) -> None:
    async def main(sender: AsyncSender, submitter: Counting) -> None:
        sends = [sender.submit(QUEUE, 0, [b"m"]) for _ in range(3)]
        errors = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(error) for error in errors] == [BrokerUnavailable] * 3

    with redis.Redis.from_url(broker_url) as client:
        client.set(QUEUE, "no list")
        run(broker_url, 0, main)


def test_a_cancelled_task_does_not_take_its_message_back(broker_url: str) -> None:
    async def main(sender: AsyncSender, submitter: Counting) -> None:
        first, second = (asyncio.create_task(sender.submit(QUEUE, 0, [name])) for name in (b"1", b"2"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    run(broker_url, 0, main)
    with redis.Redis.from_url(broker_url) as client:
        assert client.llen(QUEUE) == 2
