"""Publishing through the transport: messages go into their lists, then the doorbell rings."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis.client import Pipeline

from headrace.queueing import keys
from headrace.queueing.channel.queues import QueueChannel

logger = logging.getLogger(__name__)

#: The routing key of Celery's heartbeats.
_HEARTBEAT: Final = "worker.heartbeat"


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
        """Send the gathered messages and ring."""
        if self._buffered:
            for queue in self._rings:
                ring(self.pipeline, queue)
        super().flush()


class PublishingChannel(QueueChannel):
    """A channel that publishes to queues whose consumers wait for doorbells."""

    if TYPE_CHECKING:  # what kombu's stubs leave out
        connection_errors: tuple[type[Exception], ...]

        def _get_message_priority(self, message: Any, reverse: bool = ...) -> int: ...

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        list_key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        if batch is not None:
            batch.add("lpush", list_key, dumps(message))
            for each in self._lists(queue) if queue in self._expires else ():
                batch.add("pexpire", each, self._expires[queue])
            batch.ring(queue)
            return
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.lpush(list_key, dumps(message))
            self._add_expiry(pipe, queue)
            ring(pipe, queue)
            pipe.execute()

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **kwargs: Any) -> Any:
        """Publish a message; a heartbeat that can't be sent is dropped.

        Celery would have kombu connect for it without end, on the main thread, which then hears no SIGTERM; and the
        next heartbeat says as much.
        """
        try:
            return super().basic_publish(message, exchange, routing_key, **kwargs)
        except self.connection_errors as exc:
            if routing_key != _HEARTBEAT:
                raise
            logger.debug("a heartbeat was not sent: %s", exc)

    def create_publish_batch(self, max_size: int) -> RingingBatch:
        """Return a batch that sends many messages in few round trips."""
        return RingingBatch(self, max_size)
