"""Messages that a channel has delivered and that are not acknowledged yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, Protocol

from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from headrace.queueing.logs import logger

#: Between two looks for what workers of `redis://` left behind; a look is one command. kombu looks every 100 s.
RECOVER_EVERY_S: Final = 100.0


class AckSink(Protocol):
    """The side of a channel that settles messages."""

    def ack_soon(self, tag: str) -> None:
        """Acknowledge a message with the others of this turn of the event loop."""

    def requeue(self, tag: str) -> None:
        """Put a message back behind all that wait at its priority."""

    def release_all(self) -> None:
        """Put back all that the channel holds."""

    def recover_unacked(self) -> None:
        """Put back what dead workers of `redis://` held."""


class QoS(kombu_redis.QoS):
    """A count of delivered messages; the messages themselves are held by the channel's ClaimingConsumer.

    Acknowledging may happen in any thread.
    """

    channel: AckSink  # type: ignore[assignment]
    _recover_at = 0.0
    _delivered: dict[str, Any]  # type: ignore[assignment]

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that is being delivered."""
        self._delivered[delivery_tag] = message

    def can_consume(self) -> bool:
        """Return whether the prefetch window has room."""
        return not self.prefetch_count or len(self._delivered) < self.prefetch_count

    def room(self, unlimited: int) -> int:
        """Return how many more messages may be delivered; `unlimited` when there is no prefetch count."""
        if not self.can_consume():
            return 0
        if "can_consume" in self.__dict__:
            # Celery's worker_disable_prefetch replaced it, and asks before each message whether a process is free.
            return 1
        return self.prefetch_count - len(self._delivered) if self.prefetch_count else unlimited

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; the command goes with those of the same turn of the event loop."""
        self._delivered.pop(delivery_tag, None)
        self.channel.ack_soon(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or put it back behind all that wait at its priority, so that it holds up none of them."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self._delivered.pop(delivery_tag, None)
        self.channel.requeue(delivery_tag)

    def restore_unacked(self, client: Any | None = None) -> Iterator[Any] | None:  # type: ignore[override]  # noqa: ARG002
        """Put back all messages that are delivered and not acknowledged."""
        self._delivered.clear()
        self.channel.release_all()
        return None

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Put back what dead workers of `redis://` held, now and then; kombu calls this. Leases see to the rest."""
        now = time.monotonic()
        if now < self._recover_at:
            return
        self._recover_at = now + RECOVER_EVERY_S
        try:
            self.channel.recover_unacked()
        except ResponseError as exc:
            logger.warning("queueing.unacked_not_recovered error=%s", exc)
