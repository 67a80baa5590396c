"""Ringing the doorbell after messages were put in a queue."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from headrace.queueing import keys


def ring(pipe: Any, queue: str) -> None:
    """Add to a pipeline, after the messages: wake one consumer of a queue. Leaves one token at most."""
    bell = keys.doorbell(queue)
    pipe.lpush(bell, 1)
    pipe.ltrim(bell, 0, 0)
    pipe.expire(bell, keys.BELL_TTL_S)


class RingingBatch(kombu_redis.PublishBatch):  # type: ignore[name-defined,misc]
    """A batch of messages that rings each doorbell once."""

    def __init__(self, channel: Any, max_size: int) -> None:
        """max_size: commands sent in one round trip."""
        super().__init__(channel, max_size)
        self._rings: set[str] = set()

    def ring(self, queue: str) -> None:
        """Note that a queue gets a message; it is rung at each flush from now on."""
        self._rings.add(queue)

    def flush(self) -> None:
        """Send what was gathered and ring."""
        if self._buffered:
            for queue in self._rings:
                ring(self.pipeline, queue)
        super().flush()
