"""Dead-letters messages that Celery cannot dispatch, after their senders were answered.

Stock Celery drops such messages, or crashes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from headrace.contracts.errors import HeadraceError, InvalidRequest, NotRegistered, quoted

if TYPE_CHECKING:
    from headrace.queueing.channel.message import UnreadableBody
    from headrace.workers.intake.strategy import Intake

logger = logging.getLogger(__name__)

#: Looked up once a message.
_look_up: Final = dict.__getitem__


def dead_letter_undeliverable(consumer: Any, intake: Intake) -> None:
    """Replace how a Celery consumer treats messages it can't read. Call it before the consumer's loop starts."""

    def turn_away(message: Any, error: HeadraceError, payload: object = None) -> None:
        logger.error("buried queue=%s reason=%s", message.delivery.queue, error.message)
        if not intake.turn_away(message, error, payload=payload, dead_letter=error.message):
            message.channel.consumer.dead_letter(message.delivery_tag, error.message, [])

    def on_unknown_message(body: object, message: Any) -> None:
        turn_away(message, InvalidRequest("the message has neither of Celery's protocols"), body)

    def on_unknown_task(_body: object, message: Any, _exc: Exception) -> None:
        # Celery passes no body here, but has decoded that of its protocol 1.
        payload = message.payload if "task" not in message.headers else None
        name = payload.get("task") if isinstance(payload, dict) else message.headers.get("task")
        turn_away(message, NotRegistered(f"the task {quoted(name)} is none of this queue's"), payload)

    def on_invalid_task(body: object, message: Any, exc: Exception) -> None:
        turn_away(message, InvalidRequest(f"the message can't be read: {type(exc).__name__}"), body)

    def on_decode_error(message: Any, exc: Exception) -> None:
        turn_away(message, InvalidRequest(f"the body can't be read: {type(exc).__name__}"))

    def on_unreadable(cause: UnreadableBody) -> None:
        turn_away(cause.message, InvalidRequest(f"the body can't be read: {cause}"))

    consumer.strategies = _Strategies(consumer.strategies)
    consumer.on_unknown_message = on_unknown_message
    consumer.on_unknown_task = on_unknown_task
    consumer.on_invalid_task = on_invalid_task
    consumer.on_decode_error = consumer.task_consumer.on_decode_error = on_decode_error
    consumer.task_consumer.channel.unreadable = on_unreadable


class _Strategies(dict[Any, Any]):
    """Tasks by name; a value that can't even be a name is an unknown task."""

    def __getitem__(self, name: object) -> Any:
        try:
            return _look_up(self, name)
        except TypeError:
            raise KeyError(name) from None
