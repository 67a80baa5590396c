"""The answer to `celery inspect scheduled`: Celery's own list, and requests that wait for their time in the server."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any, Final

from celery.worker import control
from redis.exceptions import RedisError

from headrace.queueing.admin.delayed import Delayed, next_delayed

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(__name__)

#: Most that an answer names; with their headers some 100 kB.
SHOWN: Final = 200

_NAME: Final = "scheduled"


def show_delayed(client: redis.Redis) -> None:
    """Make this worker process name what waits in the server, which all workers of a queue share and each one shows."""
    own = control.scheduled  # type: ignore[attr-defined]  # missing from the stubs

    def scheduled(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """List of currently scheduled ETA/countdown tasks."""
        found: list[dict[str, Any]] = own(state, **kwargs)
        queues = {queue.name for queue in state.consumer.task_consumer.queues}
        try:
            waiting = next_delayed(client, queues, SHOWN)
        except RedisError as exc:
            logger.warning("workers.delayed_not_shown error=%s", exc)
            return found
        return found + [_entry(each, state.hostname) for each in waiting]

    control.inspect_command(name=_NAME, alias="dump_schedule")(scheduled)


def _entry(delayed: Delayed, hostname: str) -> dict[str, Any]:
    """Return an entry as Celery writes those of its own."""
    headers = delayed.headers
    return {
        "eta": dt.datetime.fromtimestamp(delayed.due_at, dt.UTC).isoformat(),
        "priority": 0,
        "request": {
            "id": headers.get("id"),
            "name": headers.get("task") or delayed.queue,
            "args": headers.get("argsrepr"),
            "kwargs": headers.get("kwargsrepr"),
            "hostname": hostname,
            "delivery_info": {"exchange": "", "routing_key": delayed.queue},
        },
    }
