"""Celery's event dispatcher, which never tries again: an event that isn't sent holds up nobody."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):
    """Sends each event once. Celery's heartbeat asks for retries without end.

    Where the broker can't be reached they would keep the main thread for as long, and a worker that is told to end
    meanwhile would not.
    """

    def send(self, *arguments: Any, **options: Any) -> Any:
        """Send an event; what can't be sent is kept until the connection is back."""
        return super().send(*arguments, **{**options, "retry": False})


class Events(CeleryEvents):
    """`app.events` of a worker."""

    dispatcher_cls = "headrace.workers.celery_app.dispatcher:Dispatcher"
