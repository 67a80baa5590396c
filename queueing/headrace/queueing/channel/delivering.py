"""Delivery of claimed messages to their consumers, and of unreadable ones to the dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from headrace.queueing.channel import message
from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.holding import HoldingChannel
from headrace.queueing.channel.options import ROUND_ROBIN
from headrace.queueing.consumer.delivery import Delivery
from headrace.queueing.logs import logger

#: How long messages are delivered before the event loop gets a turn, which sends acknowledgements and reads broadcasts.
#: Matters where delivering means executing, as in Celery's solo pool.
TURN_S: Final = 0.005


class DeliveringChannel(HoldingChannel):
    """A channel that delivers claimed messages."""

    Message = message.Message

    #: Takes messages that came back from a consumer that died or lost its lease, unopened: opening one may be what
    #: killed it. Called by the consuming thread, on which `pass_on` or `dead_letter_garbage` must follow. None opens
    #: them like all others.
    returned: Callable[[Delivery], None] | None = None

    #: Takes messages whose body can't be read, and answers and settles them. None moves them to the dead letters.
    unreadable: Callable[[message.UnreadableBody], None] | None = None

    if TYPE_CHECKING:  # what kombu's stubs leave out
        _queue_cycle: Any

    def _deliver_pending(self) -> bool:
        delivered = 0
        turn_ends = time.monotonic() + (TURN_S if self.connection.in_loop else 0.0)
        while self._pending:
            delivered += self._deliver(self._pending.popleft())
            if delivered and time.monotonic() >= turn_ends:
                break
        if not delivered:
            raise Empty
        return True

    def _deliver(self, delivery: Delivery) -> int:
        callback = self.connection._callbacks.get(delivery.queue)
        if callback is None:
            self.consumer.release([delivery.tag])
            return 0
        if self.queue_order_strategy != ROUND_ROBIN:
            self._queue_cycle.rotate(delivery.queue)
        if delivery.deliveries and delivery.tag and self.returned is not None:
            self.returned(delivery)
            return 1
        opened = self._open(delivery)
        if opened is None:
            return 0
        callback(opened)
        return 1

    def pass_on(self, delivery: Delivery, opened: message.Message) -> None:
        """Deliver a message that `returned` took and has opened."""
        callback = self.connection._callbacks.get(delivery.queue)
        if callback is None:
            self.consumer.release([delivery.tag])
        else:
            callback(opened)

    def _open(self, delivery: Delivery) -> message.Message | None:
        """Make a kombu message of a delivery; None for garbage, which goes to the dead letters."""
        try:
            return message.open_delivery(delivery, self, self.max_message_bytes)
        except NotAnEnvelope as exc:
            self.dead_letter_garbage(delivery, exc)
            return None

    def dead_letter_garbage(self, delivery: Delivery, cause: NotAnEnvelope) -> None:
        """Move a delivery that is no message to the dead letters; its sender is answered first if possible."""
        if isinstance(cause, message.UnreadableBody) and delivery.tag and self.unreadable is not None:
            self.unreadable(cause)
            return
        logger.error("queueing.dead_lettered queue=%s bytes=%d error=%s", delivery.queue, delivery.message_bytes, cause)
        if delivery.tag:
            self.consumer.dead_letter(delivery.tag, f"not a Celery message: {cause}", [])
