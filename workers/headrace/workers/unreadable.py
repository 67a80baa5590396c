"""What Celery's dispatch makes no request of goes to the dead letters; by itself Celery drops it, or dies of it."""

from __future__ import annotations

import logging
from typing import Any, Final

from headrace.contracts.errors import quoted

logger = logging.getLogger(__name__)

#: Looked up once a message.
_look_up: Final = dict.__getitem__


def keep_unreadable(consumer: Any) -> None:
    """Take over what a Celery consumer does with messages it can't read. Call it before the consumer's loop starts."""

    def on_unknown_message(_body: object, message: Any) -> None:
        _bury(message, "the message has neither of Celery's protocols")

    def on_unknown_task(_body: object, message: Any, _exc: Exception) -> None:
        _bury(message, f"the task {quoted(message.headers.get('task'))} is none of this queue's")

    def on_invalid_task(_body: object, message: Any, exc: Exception) -> None:
        _bury(message, f"the message can't be read: {type(exc).__name__}")

    def on_decode_error(message: Any, exc: Exception) -> None:
        _bury(message, f"the body can't be read: {type(exc).__name__}")

    consumer.strategies = _Strategies(consumer.strategies)
    consumer.on_unknown_message = on_unknown_message
    consumer.on_unknown_task = on_unknown_task
    consumer.on_invalid_task = on_invalid_task
    consumer.on_decode_error = consumer.task_consumer.on_decode_error = on_decode_error


class _Strategies(dict[Any, Any]):
    """Tasks by name; what can't even be a name is an unknown one."""

    def __getitem__(self, name: object) -> Any:
        try:
            return _look_up(self, name)
        except TypeError:
            raise KeyError(name) from None


def _bury(message: Any, reason: str) -> None:
    logger.error("buried queue=%s reason=%s", message.delivery.queue, reason)
    message.channel.consumer.bury(message.delivery_tag, reason, [])
