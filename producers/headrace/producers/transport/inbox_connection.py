"""The connection over which a client reads its inbox: blocking reads with a bound, and a nudge that ends them early."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import encode_replies
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.connection.connect import connect

#: Longest single blocking read of an inbox, at most half of the time after which silence means a dead connection.
READ_S: Final = 3.0

#: A caller whose time is up waits so much longer for the answer to its last read. A new connection for reading has as
#: much for its greeting; a caller with more time tries again.
LATE_S: Final = 1.0

#: Redis before 7 may take a shorter time for "forever".
SHORTEST_READ_S: Final = 0.01

#: Elements taken from the inbox at once when nobody waits; each holds the replies of a batch.
_POLL_ELEMENTS: Final = 64

#: An element without replies: the reader of the inbox wakes and looks around.
NUDGE: Final = encode_replies([])

_log: Final = logging.getLogger(__name__)


def read_for_s(silence_s: float) -> float:
    """Return the longest time of one blocking read, so that a silent connection is noticed after `silence_s`."""
    return min(READ_S, silence_s / 2)


def is_silence(error: BrokerUnavailable) -> bool:
    """Return whether the broker gave no answer, rather than a refusal or the end of the connection."""
    return isinstance(error.__cause__, redis.TimeoutError)


class InboxConnection:
    """Reads one inbox. It doesn't retry, so that its user learns of every break; one thread at a time reads."""

    def __init__(self, url: str, key: str, silence_s: float) -> None:
        """key: the list to read. silence_s: a connection that is silent for so long is dead."""
        self._key = key
        self.read_s = read_for_s(silence_s)
        self.silence_s = silence_s
        self.late_s = silence_s - self.read_s
        # Reads have a bound of their own; other calls give up soon.
        retry = redis.retry.Retry(ExponentialBackoff(), 0)
        self._client = connect(url, silence_s=silence_s, retry=retry, socket_timeout=min(LATE_S, silence_s))

    def read(self, timeout_s: float, late_s: float) -> bytes | None:
        """Wait for an element, at most `timeout_s`; fails when no answer has come `late_s` after that.

        Raises BrokerUnavailable.
        """
        with broker_errors():
            found = self._call(timeout_s + late_s, "BLPOP", self._key, max(timeout_s, SHORTEST_READ_S))
        return found[1] if found else None

    def take(self, timeout_s: float) -> Iterator[bytes]:
        """Yield all elements without waiting for more; fails when no answer has come in time.

        Raises BrokerUnavailable.
        """
        taken = _POLL_ELEMENTS
        while taken == _POLL_ELEMENTS:
            with broker_errors():
                elements = self._call(timeout_s, "LPOP", self._key, _POLL_ELEMENTS) or []
            yield from elements
            taken = len(elements)

    def _call(self, timeout_s: float, *command: str | int | float) -> Any:
        connection = self._client.connection_pool.get_connection()
        try:
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            return connection.read_response(timeout=timeout_s)
        finally:
            self._client.connection_pool.release(connection)

    def nudge(self) -> None:
        """End a blocking read early."""
        try:
            with broker_errors():
                self._client.rpush(self._key, NUDGE)
        except BrokerUnavailable:
            # Then the read itself fails too, or it ends after some seconds.
            _log.debug("nudge_failed inbox=%s", self._key)

    def close(self) -> None:
        """Delete the inbox and close the connection."""
        try:
            with broker_errors():
                self._client.delete(self._key)
        except BrokerUnavailable:
            # The workers gave the list a time to live.
            _log.debug("inbox_not_deleted inbox=%s", self._key)
        self._client.close()
