"""Replies to requests without rows: a worker keeps them under a key, and a client that got none finds them there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
import redis
from tests.eventually import eventually
from tests.producers.peer import MODEL

from headrace.contracts import InferenceFailed, Settings
from headrace.contracts.message import Reply, encode_replies
from headrace.producers import AsyncClient, Client
from headrace.queueing.keys import Keys

X = np.arange(3, dtype=np.float32).reshape(1, 3)

#: Rows are looked for every 5 s.
FOUND_S = 30.0


@pytest.fixture
def keep(broker_url: str) -> Callable[[str, str], None]:
    """Keep the answer to a request, as a worker does: (request id, key prefix)."""

    def keep(request_id: str, prefix: str = "") -> None:
        reply = Reply(id=request_id, state="failed", error_type="InferenceFailed", error_message="it can't be stored")
        with redis.Redis.from_url(broker_url) as broker:
            broker.set(Keys(prefix).answer(request_id), encode_replies([reply]))

    return keep


@pytest.mark.parametrize("prefix", ["", "tenant:"])
@pytest.mark.parametrize("with_store", [True, False])
def test_who_waits_is_answered(settings: Settings, keep: Callable[..., None], prefix: str, with_store: bool) -> None:
    changes = {"key_prefix": prefix, **({} if with_store else {"database_url": None})}
    with Client(settings.model_copy(update=changes)) as client:
        handle = client.submit(MODEL, {"x": X})
        keep(handle.id, prefix)
        with pytest.raises(InferenceFailed, match="it can't be stored"):
            handle.result(timeout_s=FOUND_S)


def test_who_asks_is_told(client: Client, keep: Callable[..., None]) -> None:
    asked, polled = (client.submit(MODEL, {"x": X}) for _ in range(2))
    keep(asked.id)
    keep(polled.id)
    eventually(lambda: asked.status() == "failed", FOUND_S, "the status of a request without a row")
    eventually(polled.done, FOUND_S, "the end of a request without a row")


def test_a_task_that_waits_or_asks_is_answered(settings: Settings, keep: Callable[..., None]) -> None:
    async def go() -> None:
        async with AsyncClient(settings) as client:
            waited, asked = [await client.submit(MODEL, {"x": X}) for _ in range(2)]
            keep(waited.id)
            keep(asked.id)
            with pytest.raises(InferenceFailed, match="it can't be stored"):
                await waited.result(timeout_s=FOUND_S)
            async with asyncio.timeout(FOUND_S):
                while await asked.status() != "failed":
                    await asyncio.sleep(0.05)

    asyncio.run(go())
