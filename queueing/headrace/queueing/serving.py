"""Who consumes a queue: written by a consumer when it starts and when it renews its lease, read by whoever waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from headrace.queueing import keys, scripts

if TYPE_CHECKING:
    import redis
    import redis.asyncio

#: ARGV: consumer, lease in ms, then queues. Notes the consumer among those of each queue, in place of the ones whose
#: lease has ended.
_ANNOUNCE: Final = f"""
redis.call('ZREM', '{keys.LEASES}', '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do
  local consumers = '{keys.CONSUMERS_PREFIX}' .. ARGV[at]
  redis.call('ZREMRANGEBYSCORE', consumers, '-inf', now)
  redis.call('ZADD', consumers, now + tonumber(ARGV[2]), ARGV[1])
  redis.call('EXPIRE', consumers, {keys.CONSUMERS_TTL_S})
end
"""


class ConsumedQueues:
    """The queues of one consumer, as the server knows them. Methods raise the errors of `redis.exceptions`."""

    def __init__(self, client: redis.Redis, consumer: str, lease_ms: int) -> None:
        """lease_ms: how long the server believes it without `renew`."""
        self._client = client
        self._consumer = consumer
        self._lease_ms = lease_ms
        self._announce = scripts.script(client, _ANNOUNCE)
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
        self._client.zrem(keys.consumers(queue), self._consumer)

    def renew(self, client: redis.Redis | None = None) -> None:
        """Be known for another lease; client: a connection of the caller's own, or None."""
        with self._lock:
            queues = sorted(self._queues)
        if queues:
            self._announce(args=[self._consumer, self._lease_ms, *queues], client=client)

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
        pipe.zrange(keys.consumers(queue), -1, -1, withscores=True)
        return _lives(*pipe.execute())


async def is_served_async(client: redis.asyncio.Redis, queue: str) -> bool:
    """Return whether a queue has a consumer; see `is_served`."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.consumers(queue), -1, -1, withscores=True)
        return _lives(*await pipe.execute())


def _lives(time: tuple[int, int], last: list[Any]) -> bool:
    seconds, micros = time
    return bool(last) and float(last[0][1]) > seconds * 1000 + micros // 1000
