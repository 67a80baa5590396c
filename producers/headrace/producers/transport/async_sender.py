"""Sends what tasks submit at the same time in one call: while it is under way, messages gather for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts.errors import BrokerUnavailable
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.submission import AsyncSubmitter

#: Messages taken into one call at most; the Submitter cuts it into pipelines.
_MESSAGES: Final = 4096


@dataclass(slots=True)
class _Parcel:
    """One task's submission. accepted: how many of the messages were, once that is known."""

    messages: Sequence[bytes]
    accepted: asyncio.Future[int]


@dataclass(slots=True)
class _Line:
    """The parcels that wait for one queue and priority, and the task that sends them."""

    parcels: list[_Parcel] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    def take(self) -> list[_Parcel]:
        """Take the first parcels, up to _MESSAGES, but at least one."""
        count = total = 0
        while count < len(self.parcels) and (count == 0 or total + len(self.parcels[count].messages) <= _MESSAGES):
            total += len(self.parcels[count].messages)
            count += 1
        taken, self.parcels = self.parcels[:count], self.parcels[count:]
        return taken


class AsyncSender:
    """Submits for many tasks of one event loop, with one call at a time for each queue and priority."""

    def __init__(self, submitter: AsyncSubmitter, limit: int) -> None:
        """limit: most messages waiting in one queue; 0 is no limit."""
        self._submitter = submitter
        self._limit = limit
        self._lines: dict[tuple[str, int], _Line] = {}

    async def send(self, queue: str, priority: int, messages: Sequence[bytes]) -> int:
        """Put messages on a queue, in order; return how many were accepted, counted from the first.

        A task that is cancelled meanwhile doesn't take its messages back. Raises BrokerUnavailable.
        """
        line = self._lines.setdefault((queue, priority), _Line())
        parcel = _Parcel(messages, asyncio.get_running_loop().create_future())
        line.parcels.append(parcel)
        if line.task is None:
            line.task = asyncio.create_task(self._send_all(queue, priority, line), name="headrace-sender")
        return await parcel.accepted

    async def _send_all(self, queue: str, priority: int, line: _Line) -> None:
        taken: list[_Parcel] = []
        try:
            while line.parcels:
                taken = line.take()
                await self._send(queue, priority, taken)
        finally:
            # Nothing is left here unless the loop shuts down or a bug surfaced: then nobody must wait.
            for parcel in taken + line.parcels:
                parcel.accepted.cancel()
            del self._lines[queue, priority]

    async def _send(self, queue: str, priority: int, parcels: list[_Parcel]) -> None:
        messages = [message for parcel in parcels for message in parcel.messages]
        try:
            with broker_errors():
                left = await self._submitter.submit(queue, priority, messages, self._limit)
        except BrokerUnavailable as exc:
            for parcel in parcels:
                if not parcel.accepted.done():
                    error = BrokerUnavailable(exc.message)
                    error.__cause__ = exc.__cause__
                    parcel.accepted.set_exception(error)
            return
        for parcel in parcels:
            accepted = min(left, len(parcel.messages))
            left -= accepted
            if not parcel.accepted.done():
                parcel.accepted.set_result(accepted)

    async def close(self) -> None:
        """Wait until all that was given has been sent or refused."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
