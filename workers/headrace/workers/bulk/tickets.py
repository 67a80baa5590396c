"""Tickets: messages that wake the bulk side of a worker. What there is to do is in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from celery import Celery, Task
    from kombu.message import Message

    from headrace.queueing import Channel


class TicketHandler:
    """Handles the tickets of one model, as Celery calls it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: makes the bulk side look into the ledger."""
        self._wake = wake

    def __call__(self, message: Message, *_: object, **__: object) -> None:
        """Wake the bulk side, and acknowledge: a ticket that is lost from here on is sent again by a sweep."""
        self._wake()
        cast("Channel", message.channel).consumer.ack([cast("str", message.delivery_tag)])


def ticket_strategy(task: Task[Any, Any], app: Celery, consumer: Any) -> TicketHandler:  # noqa: ARG001 — Celery's interface
    """Make the handler of one model's tickets (Celery calls this once a task and connection)."""
    return TicketHandler(consumer.controller.headrace_engine.bulk.wake)
