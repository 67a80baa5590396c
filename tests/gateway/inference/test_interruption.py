"""A wait ends with the error it is given, and nothing else is disturbed."""

from __future__ import annotations

import asyncio

import pytest

from headrace.gateway.inference.interruption import Interruptible


class Ended(Exception):
    pass


def test_the_body_ends_with_the_error_and_the_task_goes_on() -> None:
    async def main() -> None:
        waiting = Interruptible()
        asyncio.get_running_loop().call_soon(waiting.interrupt, Ended())
        with pytest.raises(Ended):
            async with waiting:
                await asyncio.sleep(60)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(main())


def test_an_error_that_comes_before_ends_it_at_once() -> None:
    async def main() -> None:
        waiting = Interruptible()
        waiting.interrupt(Ended())
        with pytest.raises(Ended):
            async with waiting:
                pytest.fail("the body ran")

    asyncio.run(main())


def test_an_error_that_comes_after_is_nobodys() -> None:
    async def main() -> None:
        waiting = Interruptible()
        async with waiting:
            await asyncio.sleep(0)
        waiting.interrupt(Ended())
        await asyncio.sleep(0)

    asyncio.run(main())


def test_the_first_error_counts() -> None:
    async def main() -> None:
        waiting = Interruptible()
        first = Ended()
        asyncio.get_running_loop().call_soon(waiting.interrupt, first)
        asyncio.get_running_loop().call_soon(waiting.interrupt, Ended())
        with pytest.raises(Ended) as caught:
            async with waiting:
                await asyncio.sleep(60)
        assert caught.value is first

    asyncio.run(main())


def test_a_cancelled_task_stays_cancelled() -> None:
    async def body() -> None:
        async with Interruptible():
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_errors_of_the_body_are_its_own() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="mine"):
            async with Interruptible():
                raise ValueError("mine")

    asyncio.run(main())
