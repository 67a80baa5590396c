"""Notices connections that wait for what others send, and on which nothing has come for too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.eventio import READ, poll

from headrace.contracts.errors import ConfigurationError
from headrace.queueing.connection.patience import suspicion
from headrace.queueing.logs import logger

#: Of the time that a connection may be silent, this part passes before it is asked for a sign of life; the rest is for
#: the answer.
ASK_AFTER: Final = 0.3


def is_readable(connection: Any) -> bool:
    """Return whether a connection has something to read, without reading it: an event loop still has to see it."""
    poller = poll()
    try:
        poller.register(connection._sock, READ)
        return bool(poller.poll(0))
    finally:
        poller.close()


def is_overdue(connection: Any, silent_s: float, bound_s: float) -> bool:
    """Return whether an answer has not come within the bound; one that has come but was not read yet counts.

    The thread that reads may itself have been busy all the time, with a task say.
    """
    return silent_s >= bound_s and connection._sock is not None and not is_readable(connection)


class FanoutWatch:
    """Asks one pub/sub connection for a sign of life, which comes among the broadcasts, and drops it without."""

    def __init__(self) -> None:
        """Nothing was asked."""
        self._sock: Any = None
        self._asked_at = 0.0

    def look(self, pubsub: Any, now: float, bound_s: float) -> None:
        """Ask when it is time; drop the connection when it has been silent for `bound_s`. pubsub: connected."""
        connection = pubsub.connection
        if connection._sock is not self._sock:
            self._sock, self._asked_at = connection._sock, now
            pubsub.health_check_response_counter = 0
        elif connection.is_suspect:
            connection.disconnect()  # a broadcast that is lost on it would never be missed
        elif pubsub.health_check_response_counter > 0:
            if is_overdue(connection, now - self._asked_at, bound_s * (1 - ASK_AFTER)):
                logger.warning("queueing.silent_connection waits_for=broadcasts silent_s=%.1f", now - self._asked_at)
                suspicion.raise_()
                connection.disconnect()
        elif now - self._asked_at >= bound_s * ASK_AFTER:
            self._asked_at = now
            # Counted down by redis-py when it reads the answer.
            pubsub.health_check_response_counter = 1
            connection.send_command("PING", pubsub.HEALTH_CHECK_MESSAGE, check_health=False)


def check_bounds(channel: Any, given: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for transport options about silence that contradict each other. given: the options."""
    for name in ("socket_timeout", "socket_connect_timeout", "health_check_interval"):
        value = getattr(channel, name)
        least = 0 if name == "health_check_interval" else 1e-9
        if value is not None and (not isinstance(value, int | float) or not least <= value < float("inf")):
            raise ConfigurationError(f"the transport option {name} is {value!r}; give it a number of seconds")
    wait_s, bound_s = given.get("polling_interval"), given.get("socket_timeout")
    if wait_s and bound_s and bound_s <= wait_s:
        raise ConfigurationError(
            f"the transport option socket_timeout ({bound_s:g} s) is no longer than polling_interval ({wait_s:g} s), "
            f"so an idle wait could not be told from a broken connection; make it longer"
        )
    if given.get("socket_keepalive", True) in (False, None) and given.get("socket_keepalive_options"):
        raise ConfigurationError(
            "the transport option socket_keepalive_options contradicts socket_keepalive=False; leave one of them out"
        )
