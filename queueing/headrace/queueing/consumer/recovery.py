"""Messages that dead workers of kombu's `redis://` transport held: put back by the consumer that replaces them.

Such a worker notes what it holds in the hash `unacked`, and the time in the sorted set `unacked_index`; others of its
kind put back what is older than their `visibility_timeout`. An app that moves to `headrace://` leaves nobody to do it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from kombu.utils.json import dumps, loads

from headrace.queueing.keys import Keys, keys_of
from headrace.queueing.logs import logger
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

#: kombu's names of the two keys, and of the sets of an exchange's bindings; without the prefix.
UNACKED: Final = "unacked"
UNACKED_INDEX: Final = "unacked_index"
_BINDINGS: Final = "_kombu.binding."

#: kombu's default of `visibility_timeout`.
VISIBILITY_S: Final = 3600.0

#: Messages read in one round trip.
_PAGE: Final = 100


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a recovery of messages that workers of `redis://` noted as theirs.

    put_back: on their queues again. younger: noted too short a time ago, and left. unroutable: left because their
    queue can't be told.
    """

    put_back: int
    younger: int
    unroutable: int


class Unacked(msgspec.Struct, frozen=True, kw_only=True):
    """The keys in which workers of an app note what they hold, by kombu's transport options, without the prefix."""

    hash_key: str = UNACKED
    index_key: str = UNACKED_INDEX


_DEFAULT_KEYS: Final = Unacked()


def recover(
    client: Redis,
    older_s: float = VISIBILITY_S,
    *,
    queues: Container[str] | None = None,
    where: Unacked = _DEFAULT_KEYS,
) -> Recovered:
    """Put back messages that workers of `redis://` have held for longer than `older_s`, marked as redelivered.

    Messages that a living worker has been working on for longer are put back, too; kombu does the same.
    queues: only what belongs to one of these. Raises the errors of `redis.exceptions`.
    """
    keys = keys_of(client)
    index = keys.prefix + where.index_key
    oldest: list[bytes] = client.zrange(index, "-inf", time.time() - older_s, byscore=True)  # type: ignore[assignment]
    if not oldest:
        return Recovered(put_back=0, younger=int(client.zcard(index)), unroutable=0)
    move = scripts.script(client, scripts.RECOVER)
    find_queues = _Router(client, keys)
    put_back = unroutable = 0
    for tag, noted in _read(client, keys.prefix + where.hash_key, index, oldest):
        found = _parse(noted, find_queues)
        if found is None:
            unroutable += 1
            continue
        message, priority, targets = found
        if queues is not None and not any(queue in queues for queue in targets):
            continue
        names = [keys.prefix + where.hash_key, index]
        for queue in targets:
            names += keys.queue_list(queue, keys.lists.step_for(queue, priority)), keys.doorbell(queue)
        put_back += int(move(keys=names, args=[tag, hashlib.sha1(noted, usedforsecurity=False).hexdigest(), message]))
    younger = int(client.zcount(index, f"({time.time() - older_s}", "+inf"))
    if put_back:
        logger.warning("queueing.recovered_unacked messages=%d held_longer_than_s=%g", put_back, older_s)
    return Recovered(put_back=put_back, younger=younger, unroutable=unroutable)


def _read(client: Redis, hash_key: str, index: str, tags: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for at in range(0, len(tags), _PAGE):
        page = tags[at : at + _PAGE]
        noted: list[bytes | None] = client.hmget(hash_key, page)  # type: ignore[assignment]
        for tag, each in zip(page, noted, strict=True):
            if each is None:
                client.zrem(index, tag)  # acknowledged halfway
            else:
                yield tag, each


def _parse(noted: bytes, find_queues: Callable[[str, str], list[str]]) -> tuple[str, int, list[str]] | None:
    """Return a message as it is put back, its priority and its queues; None when it has none that can be told."""
    try:
        message, exchange, routing_key = loads(noted.decode())
        headers, properties = message.get("headers"), message["properties"]
        if isinstance(headers, dict):
            headers["redelivered"] = True
        properties["delivery_info"]["redelivered"] = True
        priority = int(properties.get("priority") or 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    queues = find_queues(exchange or "", routing_key or "")
    return (dumps(message), min(max(priority, 0), 9), queues) if queues else None


class _Router:
    """Finds the queues that an exchange leads to, by the bindings that kombu keeps in Redis."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._known: dict[str, list[list[str]]] = {}

    def __call__(self, exchange: str, routing_key: str) -> list[str]:
        if not exchange:
            return [routing_key] if routing_key else []
        return sorted({queue for key, pattern, queue in self._bindings(exchange) if _fits(key, pattern, routing_key)})

    def _bindings(self, exchange: str) -> list[list[str]]:
        if exchange not in self._known:
            members: set[bytes] = self._client.smembers(f"{self._keys.prefix}{_BINDINGS}{exchange}")  # type: ignore[assignment]
            parts = [member.decode().split(self._keys.lists.separator) for member in members]
            self._known[exchange] = [each for each in parts if len(each) == 3]
        return self._known[exchange]


def _fits(key: str, pattern: str, routing_key: str) -> bool:
    """Whether a binding leads a routing key to its queue. pattern: of a topic exchange, as a regular expression."""
    if not pattern:
        return key == routing_key
    try:
        return re.match(pattern, routing_key) is not None
    except re.error:
        return False
