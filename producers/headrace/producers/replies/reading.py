"""The common part of both inboxes: the state of a broken connection, and the decoding of what they read."""

from __future__ import annotations

import logging
from typing import Final

from headrace.contracts.errors import BrokerUnavailable, InvalidRequest
from headrace.contracts.message import Reply, decode_replies
from headrace.producers.replies.losses import Losses
from headrace.producers.replies.pending import Pending

#: Between attempts to read from a broker that is away: first, and longest.
RECONNECT_FIRST_S: Final = 0.05
RECONNECT_MAX_S: Final = 1.0

#: Waiters get BrokerUnavailable when the broker was away for this long: time enough for a restart or a failover.
PATIENCE_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


class Outage:
    """An inbox's time without its broker; its owner holds the lock of `Pending` around `pause_s`."""

    def __init__(self, pending: Pending, losses: Losses) -> None:
        """pending, losses: what is to know of a break, since replies may have been lost with the connection."""
        self._pending = pending
        self._losses = losses
        #: When the connection broke, on the monotonic clock; its owner sets None after each read that succeeds.
        self.since: float | None = None

    def pause_s(self, now: float, error: BrokerUnavailable) -> float:
        """Note that a read failed; return how long to pause before the next. Raises the error after PATIENCE_S."""
        if self.since is None:
            self.since = now
            self._pending.connection_broke(now)
            self._losses.connection_broke()
        away_s = now - self.since
        if away_s > PATIENCE_S:
            raise error
        return min(max(away_s, RECONNECT_FIRST_S), RECONNECT_MAX_S)


def replies_in(element: bytes, inbox: str) -> list[Reply]:
    """Return the replies of an element; none of an unreadable one, whose requests are found through the store."""
    try:
        return decode_replies(element)
    except InvalidRequest as exc:
        _log.warning("unreadable_reply inbox=%s error=%r", inbox, exc.message)
        return []
