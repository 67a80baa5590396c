"""Messages that wait in the server for their time: to be tried again, or until their `eta`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.queueing.channel.envelope import NotAnEnvelope, read_tail
from headrace.queueing.keys import keys_of
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis


class Delayed(msgspec.Struct, frozen=True, kw_only=True):
    """A message that waits. due_at: seconds since 1970. headers: empty when they can't be read."""

    queue: str
    due_at: float
    headers: dict[str, Any]


def next_delayed(client: Redis, queues: Collection[str], limit: int) -> list[Delayed]:
    """Return the messages of some queues that are due next, the first first; one round trip.

    limit: most that are looked at, those of all queues together. Raises the errors of `redis.exceptions`.
    """
    queue_of = keys_of(client).lists.queue_of
    return [
        Delayed(queue=queue, due_at=float(due_ms) / 1000, headers=_headers(tail))
        for name, due_ms, tail in scripts.script(client, scripts.NEXT_DELAYED)(args=[limit])
        if (queue := queue_of(name.decode().split(":", 2)[2])) in queues
    ]


def _headers(tail: bytes) -> dict[str, Any]:
    try:
        return read_tail(tail).headers or {}
    except NotAnEnvelope:
        return {}
