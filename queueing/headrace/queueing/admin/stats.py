"""Statistics of the queues: messages waiting, in flight, delayed and dead."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.contracts.message import TASK_PREFIX
from headrace.queueing.channel.envelope import NotAnEnvelope, read_tail
from headrace.queueing.keys import keys_of
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

#: Keys looked at in one step when queues are searched for.
_SCAN_STEP: Final = 1000

#: The end of the year 9999 in seconds since 1970.
_LAST_SECOND: Final = 253_402_300_799


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment.

    waiting_by_step: priority step, the most urgent first (9, 6, 3, 0 for a model) → messages waiting. oldest_age_s: age
    of the message that has waited longest, of those that carry the time they were sent at; None when none does.
    delayed: messages that wait to be tried again. dead: messages in the dead letters. dead_oldest_age_s: the
    age of the oldest of them, None without any.
    """

    queue: str
    waiting: int
    waiting_by_step: dict[int, int]
    in_flight: int
    oldest_age_s: float | None
    dead: int
    delayed: int = 0
    dead_oldest_age_s: float | None = None


def queue_stats(client: Redis, queues: Iterable[str] | None = None) -> list[QueueStats]:
    """Return statistics of queues, sorted by name, in one round trip.

    queues: None looks at all queues of models in which anything waits, is in flight or is dead; finding them takes
    more round trips. Raises the errors of `redis.exceptions`.
    """
    names = sorted(find_queues(client) if queues is None else set(queues))
    if not names:
        return []
    *found, in_flight, delayed = scripts.script(client, scripts.STATS)(args=names)
    held, put_off = _counts(in_flight), _counts(delayed)
    lists = keys_of(client).lists
    now = time.time()
    return [
        _stats(name, lists.steps_of(name), row, held.get(name, 0), put_off.get(name, 0), now)
        for name, row in zip(names, found, strict=True)
    ]


def _counts(flat: list[Any]) -> dict[str, int]:
    return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}


def find_queues(client: Redis) -> set[str]:
    """Find the queues of models in which anything waits, is in flight, delayed or dead."""
    keys = keys_of(client)
    with client.pipeline(transaction=False) as pipe:
        pipe.zrange(keys.leases, 0, -1)
        pipe.hkeys(keys.dead_counts)
        pipe.zrange(keys.delayed, 0, -1)
        consumers, dead, delayed = pipe.execute()
        for consumer in consumers:
            pipe.hkeys(keys.in_flight(consumer.decode()))
        tags = [tag for held in pipe.execute() for tag in held]
    tags += [name.partition(b":")[2] for name in delayed]
    pattern = f"{keys.prefix}{TASK_PREFIX}*"
    found = client.scan_iter(pattern, count=_SCAN_STEP, _type="LIST")
    lists = [key.decode().removeprefix(keys.prefix) for key in found]
    names = {keys.lists.queue_of(key) for key in lists}
    names.update(queue.decode() for queue in dead)
    names.update(keys.lists.queue_of(tag.decode().partition(":")[2]) for tag in tags)
    return {name for name in names if name.startswith(TASK_PREFIX)}


def _stats(name: str, steps: tuple[int, ...], row: list[Any], in_flight: int, delayed: int, now: float) -> QueueStats:
    lengths, tails, dead, dead_since = row
    sent = [at for tail in tails if tail and (at := _submitted_at(tail))]
    return QueueStats(
        queue=name,
        waiting=sum(lengths),
        waiting_by_step=dict(zip(steps, lengths, strict=True)),
        in_flight=in_flight,
        oldest_age_s=max(0.0, now - min(sent)) if sent else None,
        dead=dead,
        delayed=delayed,
        dead_oldest_age_s=max(0.0, now - float(dead_since)) if dead_since else None,
    )


def _submitted_at(tail: bytes) -> float | None:
    try:
        headers = read_tail(tail).headers or {}
    except NotAnEnvelope:
        return None
    header = headers.get("headrace")
    submitted_at = header.get("submitted_at") if isinstance(header, dict) else None
    # Anybody may write anything there, such as a whole number beyond all floats.
    if not isinstance(submitted_at, int | float) or not 0 < submitted_at < _LAST_SECOND:
        return None
    return float(submitted_at)
