"""Group commit of durable requests: what tasks submit at the same time shares one transaction, then is sent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import BrokerUnavailable, HeadraceError
from headrace.producers.durable.durable_requests import DurableRequests, not_sent
from headrace.producers.requests.factory import Block
from headrace.producers.transport.async_sender import AsyncSender
from headrace.producers.transport.grouped_calls import GroupedCalls, Parcel

if TYPE_CHECKING:
    from headrace.results_store.durable.block import DurableBlock

#: Requests, and about the bytes, of one transaction at most; those of one call stay together.
_REQUESTS: Final = 1024
_BYTES: Final = 8 << 20


class AsyncKeeper(GroupedCalls[Block, uuid.UUID]):
    """Commits durable requests of many tasks and sends them; each gets the id of the row that keeps its own.

    Raises StoreUnavailable, ConfigurationError.
    """

    name = "headrace-keeper"

    def __init__(self, durable: DurableRequests, sender: AsyncSender) -> None:
        """durable: blocks, so it is called in threads."""
        super().__init__()
        self._durable = durable
        self._sender = sender

    def share(self, item: Block) -> float:
        """Count requests or bytes, whichever is more."""
        return max(len(item.ids) / _REQUESTS, sum(map(len, item.messages)) / _BYTES)

    async def call(self, queue: str, priority: int, parcels: Sequence[Parcel[Block, uuid.UUID]]) -> None:
        """Commit the requests of several tasks, then send them. queue: the name of the model."""
        ids = [each for parcel in parcels for each in parcel.item.ids]
        messages = [each for parcel in parcels for each in parcel.item.messages]
        try:
            # More than one only if a single call's requests are that many or large; its last row stands for all then.
            for block in self._durable.blocks(queue, priority, [Block(ids, messages)]):
                await asyncio.to_thread(self._durable.insert, block)
                await self._send(block)
        except HeadraceError as exc:
            for parcel in parcels:
                parcel.fail(exc)
            return
        for parcel in parcels:
            parcel.settle(block.id)

    async def _send(self, block: DurableBlock) -> None:
        try:
            sent = await self._sender.submit(block.queue, block.priority, block.messages)
        except BrokerUnavailable as exc:
            not_sent(block, exc)
        else:
            await asyncio.to_thread(self._durable.sent, block, sent)
