"""Publishing through the transport: messages go into their lists, then the doorbell rings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis.client import Pipeline

if TYPE_CHECKING:
    import redis

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.prefix import checked_prefix
from headrace.queueing import keys


def ring(pipe: Any, queue: str) -> None:
    """Add to a pipeline, after the messages: wake one consumer of a queue. Leaves one token at most."""
    bell = keys.keys_of(pipe).doorbell(queue)
    # Not by the pipeline's own methods: kombu's put its prefix in front of the keys of some commands and not of others.
    add = partial(Pipeline.execute_command, pipe)
    add("LPUSH", bell, 1)
    add("LTRIM", bell, 0, 0)
    add("EXPIRE", bell, keys.BELL_TTL_S)


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


class PublishingChannel(kombu_redis.Channel):
    """A channel that publishes to queues whose consumers wait for doorbells."""

    if TYPE_CHECKING:  # what kombu's stubs leave out
        _expires: dict[str, int]
        global_keyprefix: str
        pool: redis.ConnectionPool

        def _get_message_priority(self, message: Any, reverse: bool = ...) -> int: ...
        def _q_for_pri(self, queue: str, pri: int) -> str: ...

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        for option, value in (("sep", keys.SEPARATOR),):
            if getattr(self, option) != value:
                raise ConfigurationError(f"headrace:// doesn't support the transport option {option}; leave it out")
        if tuple(self.priority_steps) != keys.PRIORITY_STEPS:
            raise ConfigurationError("headrace:// doesn't support the transport option priority_steps; leave it out")
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        return params

    @property
    def keys(self) -> keys.Keys:
        """The keys of this channel's key space."""
        return keys.Keys(checked_prefix(self.global_keyprefix, "the transport option global_keyprefix"))

    def _get_pool(self, asynchronous: bool = False) -> Any:
        pool = super()._get_pool(asynchronous)  # type: ignore[misc]
        keys.attach(pool, self.keys)
        return pool

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:  # noqa: ARG002
        # kombu asks for the keys without their prefix.
        with self.conn_or_acquire() as client:
            return any(client.llen(self._q_for_pri(queue, step)) for step in self.priority_steps)

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            super()._put(queue, message, **kwargs)
            batch.ring(queue)
            return
        step = self._get_message_priority(message, reverse=False)
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.lpush(self._q_for_pri(queue, step), dumps(message))
            for each in self.priority_steps if queue in self._expires else ():
                pipe.pexpire(self._q_for_pri(queue, each), self._expires[queue])
            ring(pipe, queue)
            pipe.execute()

    def create_publish_batch(self, max_size: int) -> RingingBatch:
        """Give a batch that sends many messages in few round trips."""
        return RingingBatch(self, max_size)
