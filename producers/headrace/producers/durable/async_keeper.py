"""Group commit of durable requests: what tasks submit at the same time shares one transaction, then is sent."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import BrokerUnavailable, HeadraceError
from headrace.producers.durable.durable import DurableRequests, not_sent
from headrace.producers.requests.factory import Block
from headrace.producers.transport.async_sender import AsyncSender

if TYPE_CHECKING:
    from headrace.results_store.durable.block import DurableBlock

#: Requests, and about the bytes, taken into one transaction at most; those of one call stay together.
_REQUESTS: Final = 1024
_BYTES: Final = 8 << 20


@dataclass(slots=True)
class _Parcel:
    """One task's submission. kept: the row that keeps it, once that is committed and sent."""

    block: Block
    kept: asyncio.Future[uuid.UUID]


@dataclass(slots=True)
class _Line:
    """The parcels that wait for one model and priority, and the task that commits them."""

    parcels: list[_Parcel] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def take(self) -> list[_Parcel]:
        """Take the first parcels, up to the limits, but at least one."""
        count = requests = size = 0
        for parcel in self.parcels:
            requests += len(parcel.block.ids)
            size += sum(map(len, parcel.block.messages))
            if count and (requests > _REQUESTS or size > _BYTES):
                break
            count += 1
        taken, self.parcels = self.parcels[:count], self.parcels[count:]
        return taken


class AsyncKeeper:
    """Makes durable requests of many tasks of one event loop, one transaction at a time for each model and priority."""

    def __init__(self, durable: DurableRequests, sender: AsyncSender) -> None:
        """durable: blocks, so it is called in threads."""
        self._durable = durable
        self._sender = sender
        self._lines: dict[tuple[str, int], _Line] = {}

    async def keep(self, model: str, priority: int, block: Block) -> uuid.UUID:
        """Commit requests and send them; return the id of the row that keeps them.

        A task that is cancelled meanwhile doesn't take its requests back. Raises StoreUnavailable, ConfigurationError.
        """
        line = self._lines.setdefault((model, priority), _Line())
        parcel = _Parcel(block, asyncio.get_running_loop().create_future())
        line.parcels.append(parcel)
        if line.task is None:
            line.task = asyncio.create_task(self._keep_all(model, priority, line), name="headrace-keeper")
        return await parcel.kept

    async def _keep_all(self, model: str, priority: int, line: _Line) -> None:
        taken: list[_Parcel] = []
        try:
            while line.parcels:
                taken = line.take()
                await self._keep(model, priority, taken)
        finally:
            # Nothing is left here unless the loop shuts down or a bug surfaced: then nobody must wait.
            for parcel in taken + line.parcels:
                parcel.kept.cancel()
            del self._lines[model, priority]

    async def _keep(self, model: str, priority: int, parcels: list[_Parcel]) -> None:
        ids = [each for parcel in parcels for each in parcel.block.ids]
        messages = [each for parcel in parcels for each in parcel.block.messages]
        try:
            # More than one only if a single call's requests are that many or large; its last row stands for all then.
            for block in self._durable.blocks(model, priority, [Block(ids, messages)]):
                await asyncio.to_thread(self._durable.insert, block)
                await self._send(block)
        except HeadraceError as exc:
            for parcel in parcels:
                if not parcel.kept.done():
                    error = type(exc)(exc.message)
                    error.__cause__ = exc.__cause__
                    parcel.kept.set_exception(error)
            return
        for parcel in parcels:
            if not parcel.kept.done():
                parcel.kept.set_result(block.id)

    async def _send(self, block: DurableBlock) -> None:
        try:
            sent = await self._sender.send(block.queue, block.priority, block.messages)
        except BrokerUnavailable as exc:
            not_sent(block, exc)
        else:
            await asyncio.to_thread(self._durable.sent, block, sent)

    async def close(self) -> None:
        """Wait until all that was given has been committed and sent, or refused."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
