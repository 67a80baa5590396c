"""Flower's page of the broker for `headrace://` URLs, whose scheme it doesn't know.

Flower picks a reader of queue lengths by the scheme of the broker's URL and answers 404 for others. It has no plug-ins
for that, so where Flower runs in this process, its handlers get a reader that asks through the app's own transport.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from functools import wraps
from typing import Any, Final

from headrace.queueing.logs import logger

#: Where Flower's handlers choose who reads the lengths of queues, from 2.1 on.
_MODULE: Final = "flower.views"

#: The attribute that is set there once it is patched.
_PATCHED: Final = "headrace_reads_queues"


class QueueReader:
    """Reads how many messages wait in queues, as `headrace queue stats` counts them, through an app's transport."""

    def __init__(self, app: Any) -> None:
        """app: a Celery app on `headrace://`."""
        self._app = app

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return what Flower shows of each queue: `name` and `messages`. Raises kombu's connection errors."""
        return await asyncio.to_thread(self._read, list(names))

    def _read(self, names: list[str]) -> list[dict[str, Any]]:
        with self._app.connection_for_read() as connection:
            connection.connect()  # the app's own way would try again for ever
            with connection.channel() as channel:
                return [{"name": name, "messages": count} for name, count in channel.waiting(names).items()]


def serve_flower(transport: type[Any]) -> None:
    """Make Flower's handlers read queues through our transport, if Flower runs here; costs a look-up otherwise.

    transport: the class of ours; apps with another keep Flower's own reader.
    """
    views: Any = sys.modules.get(_MODULE)
    if views is None or hasattr(views, _PATCHED):
        return
    setattr(views, _PATCHED, True)
    original = getattr(views.BaseHandler, "get_broker", None)
    if original is None:
        logger.warning("queueing.flower_unknown reason=%r", "its page of the broker knows no headrace:// before 2.1")
        return

    @wraps(original)
    def get_broker(self: Any) -> Any:
        with self.capp.connection_for_read() as connection:
            is_ours = isinstance(connection.transport, transport)
        return QueueReader(self.capp) if is_ours else original(self)

    views.BaseHandler.get_broker = get_broker
