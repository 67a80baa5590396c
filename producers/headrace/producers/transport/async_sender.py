"""Sends what tasks submit at the same time in one call: while it is under way, messages gather for the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.contracts.errors import BrokerUnavailable
from headrace.producers.transport.connections import broker_errors
from headrace.producers.transport.grouped_calls import GroupedCalls, Parcel
from headrace.queueing.submission import AsyncSubmitter

#: Messages of one call at most; the Submitter cuts it into pipelines.
_MESSAGES: Final = 4096


class AsyncSender(GroupedCalls[Sequence[bytes], int]):
    """Puts messages of many tasks on queues, in order. Each learns how many of its own, from the first, were accepted.

    Raises BrokerUnavailable.
    """

    name = "headrace-sender"

    def __init__(self, submitter: AsyncSubmitter, limit: int) -> None:
        """limit: most messages waiting in one queue; 0 is no limit."""
        super().__init__()
        self._submitter = submitter
        self._limit = limit

    def share(self, item: Sequence[bytes]) -> float:
        """Count messages."""
        return len(item) / _MESSAGES

    async def call(self, queue: str, priority: int, parcels: Sequence[Parcel[Sequence[bytes], int]]) -> None:
        """Submit the messages of several tasks."""
        messages = [message for parcel in parcels for message in parcel.item]
        try:
            with broker_errors():
                left = await self._submitter.submit(queue, priority, messages, self._limit)
        except BrokerUnavailable as exc:
            for parcel in parcels:
                parcel.fail(exc)
            return
        for parcel in parcels:
            accepted = min(left, len(parcel.item))
            left -= accepted
            parcel.settle(accepted)
