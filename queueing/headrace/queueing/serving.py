"""Who consumes a queue: written by a consumer when it starts and when it renews its lease, read by whoever waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from headrace.queueing import scripts
from headrace.queueing.keys import CONSUMERS_TTL_S, PREFIXES, Keys, keys_of

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from headrace.queueing.connection import Command

#: ARGV: consumer, lease in ms, then queues. Notes the consumer among those of each queue, in place of the ones whose
#: lease has ended.
_ANNOUNCE: Final = f"""
redis.call('ZREM', '{scripts.KEYS.leases}', '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  local consumers = '{scripts.KEYS.consumers("")}' .. ARGV[at]
  redis.call('ZREMRANGEBYSCORE', consumers, '-inf', now)
  redis.call('ZADD', consumers, now + tonumber(ARGV[2]), ARGV[1])
  redis.call('EXPIRE', consumers, {CONSUMERS_TTL_S})
end
"""

#: Goes on from `_ANNOUNCE`: notes the prefix among all. An ACL may not allow it, which hurts nobody.
_ANNOUNCE_PREFIX: Final = f"""
redis.pcall('ZREMRANGEBYSCORE', '{PREFIXES}', '-inf', now)
redis.pcall('ZADD', '{PREFIXES}', 'GT', now + tonumber(ARGV[2]), '{scripts.KEYS.prefix}')
redis.pcall('EXPIRE', '{PREFIXES}', {CONSUMERS_TTL_S})
"""


class ConsumedQueues:
    """The queues of one consumer, as the server knows them. Methods raise the errors of `redis.exceptions`."""

    def __init__(self, client: redis.Redis, consumer: str, lease_ms: int) -> None:
        """lease_ms: how long the server believes it without `renew`."""
        self._client = client
        self._consumer = consumer
        self._lease_ms = lease_ms
        text = _ANNOUNCE + _ANNOUNCE_PREFIX if keys_of(client).prefix else _ANNOUNCE
        self._text = scripts.rendered(text, keys_of(client))
        self._announce = client.register_script(self._text)
        self._lock = threading.Lock()
        self._queues: set[str] = set()

    def add(self, queue: str) -> None:
        """Be known as a consumer of a queue."""
        with self._lock:
            self._queues.add(queue)
        self._announce(args=[self._consumer, self._lease_ms, queue])

    def discard(self, queue: str) -> None:
        """Be known as a consumer of a queue no more."""
        with self._lock:
            if queue not in self._queues:
                return
            self._queues.discard(queue)
        self._client.zrem(keys_of(self._client).consumers(queue), self._consumer)

    def renew(self, client: redis.Redis | None = None) -> None:
        """Be known for another lease; client: a connection of the caller's own, or None."""
        with self._lock:
            queues = sorted(self._queues)
        if queues:
            self._announce(args=[self._consumer, self._lease_ms, *queues], client=client)

    def renewal_commands(self) -> list[Command]:
        """Return the command of `renew`, for somebody else to run; none without queues."""
        with self._lock:
            queues = sorted(self._queues)
        return [("EVAL", self._text, 0, self._consumer, self._lease_ms, *queues)] if queues else []

    def close(self) -> None:
        """Be known no more."""
        for queue in sorted(self._queues):
            self.discard(queue)


def is_served(client: redis.Redis, queue: str) -> bool:
    """Return whether a consumer with a live lease takes the messages of a queue; one round trip.

    A consumer that was killed counts until its lease ends. Raises the errors of `redis.exceptions`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys_of(client).consumers(queue), -1, -1, withscores=True)
        return _lives(*pipe.execute())


async def is_served_async(client: redis.asyncio.Redis, queue: str) -> bool:
    """Return whether a queue has a consumer; see `is_served`."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys_of(client).consumers(queue), -1, -1, withscores=True)
        return _lives(*await pipe.execute())


def prefixes_served(client: redis.Redis, queue: str) -> list[str]:
    """Return the key prefixes other than the client's own under which a queue has consumers, "" for none.

    Only those whose consumers may write `keys.PREFIXES`, and whose keys the client may read; two round trips. Raises
    the errors of `redis.exceptions`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(PREFIXES, 0, -1)
        time, noted = pipe.execute(raise_on_error=False)
        known = {prefix.decode() for prefix in noted} if isinstance(noted, list) else set()
        others = sorted((known | {""}) - {keys_of(client).prefix})
        for prefix in others:
            pipe.zrange(Keys(prefix).consumers(queue), -1, -1, withscores=True)
        found = pipe.execute(raise_on_error=False)
    return [prefix for prefix, last in zip(others, found, strict=True) if isinstance(last, list) and _lives(time, last)]


def _lives(time: tuple[int, int], last: list[Any]) -> bool:
    seconds, micros = time
    return bool(last) and float(last[0][1]) > seconds * 1000 + micros // 1000
