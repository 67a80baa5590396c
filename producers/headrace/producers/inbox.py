"""Where the replies to one client arrive. Whichever waiting thread comes first reads for all of them.

A thread of its own for reading would cost two thread switches a reply, 0.1 to 5 ms when others are busy; here a
single waiter reads its own reply from the socket. The reader is called the leader; when it has its own reply, the next
waiter leads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError, InvalidRequest, StoreUnavailable
from headrace.contracts.message import Reply, decode_replies, were_dropped
from headrace.producers.broker import (
    NUDGE,
    PATIENCE_S,
    READ_S,
    RECONNECT_FIRST_S,
    RECONNECT_MAX_S,
    SHORTEST_READ_S,
    broker_errors,
    connect_for_reading,
)
from headrace.producers.pending import Pending, Waiting

#: Elements taken from the inbox at once when nobody waits; each holds the replies of a batch.
_POLL_ELEMENTS: Final = 64

#: Asking for news more often than this gives the last answer: a loop over `done()` of many handles stays cheap.
POLL_EVERY_S: Final = 0.001

#: How long `close` waits for the leader to let go of the connection.
_CLOSE_S: Final = 1.0

#: A client that submits and never waits takes its replies this often, while it submits.
TIDY_EVERY_S: Final = 1.0

_log: Final = logging.getLogger(__name__)


class Inbox:
    """Reads the replies to one client; usable from several threads."""

    def __init__(self, url: str, key: str, look_up: Callable[[Sequence[str]], list[Reply]]) -> None:
        """key: the list to read. look_up: gives replies for those of these requests that have a row."""
        self.key = key
        self._client = connect_for_reading(url)
        self._look_up = look_up
        self._pending = Pending()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._leader: Waiting | None = None
        self._down_since: float | None = None
        self._polled_at = 0.0
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def expect(self, handles: Sequence[Waiting]) -> None:
        """Take replies to these requests from now on; call it before they are sent."""
        with self._lock:
            self._pending.add(handles)

    def find(self, request_id: str, model: str) -> Waiting | None:
        """Give an unanswered request. Raises InvalidRequest when its id was given to another model."""
        with self._lock:
            return self._pending.find(request_id, model)

    def settle(self, handle: Waiting, replies: Sequence[Reply]) -> None:
        """Give a request the reply that came another way."""
        with self._lock:
            self._pending.adopt(handle)
        self._settle(replies)

    def _settle(self, replies: Sequence[Reply]) -> None:
        with self._lock:
            self._pending.settle(replies)
            leader_is_blocked = self._leader is not None and self._leader.reply is not None
        if leader_is_blocked:
            self._nudge()

    def poll(self) -> None:
        """Take what has arrived, without waiting, unless that was done just now. Raises BrokerUnavailable."""
        if time.monotonic() - self._polled_at >= POLL_EVERY_S:
            self._poll_now()

    def tidy(self) -> None:
        """Take what has arrived if that was last done long ago, so that replies nobody waits for don't pile up."""
        if time.monotonic() - self._polled_at >= TIDY_EVERY_S:
            try:
                self._poll_now()
            except BrokerUnavailable as exc:
                # Nobody asked for these replies; who waits for them will read again.
                _log.debug("tidy_failed inbox=%s error=%r", self.key, exc.message)

    def _poll_now(self) -> None:
        if self.closed or not self._reading.acquire(blocking=False):
            return
        self._polled_at = time.monotonic()
        try:
            taken = _POLL_ELEMENTS
            while taken == _POLL_ELEMENTS:
                with broker_errors():
                    elements: list[bytes] = self._client.lpop(self.key, _POLL_ELEMENTS) or []  # type: ignore[assignment]
                for element in elements:
                    self._take(element)
                taken = len(elements)
        except BrokerUnavailable:
            with self._lock:
                self._pending.connection_broke(self._polled_at)
            raise
        finally:
            self._reading.release()
            self._call_next_leader()

    def wait(self, handle: Waiting, timeout_s: float | None) -> None:
        """Wait until a request has its reply, the time is up or the inbox is closed.

        Raises BrokerUnavailable when the broker was away for PATIENCE_S.
        """
        if timeout_s is not None and timeout_s <= 0:
            self._poll_now()
            return
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        with self._watching(handle) as woken:
            while handle.reply is None and not self.closed:
                left_s = READ_S if ends_at is None else ends_at - time.monotonic()
                if left_s <= 0:
                    self._poll_now()
                    return
                if self._reading.acquire(blocking=False):
                    try:
                        self._lead(handle, ends_at)
                    finally:
                        self._reading.release()
                        self._call_next_leader()
                    if handle.reply is None:
                        self._look_up_what_is_due()
                else:
                    woken.wait(None if ends_at is None else left_s)
                    woken.clear()

    @contextmanager
    def _watching(self, handle: Waiting) -> Iterator[threading.Event]:
        woken = threading.Event()
        with self._lock:
            self._pending.watch(handle, woken.set, time.monotonic())
        try:
            yield woken
        finally:
            with self._lock:
                self._pending.unwatch(handle, woken.set)
            self._call_next_leader()

    def _call_next_leader(self) -> None:
        """Wake one waiter to read, if nobody does."""
        with self._lock:
            if not self._reading.locked():
                self._pending.wake_one()

    def _lead(self, handle: Waiting, ends_at: float | None) -> None:
        """Read until this request has its reply, the time is up, or something must be looked up in the store."""
        with self._lock:
            self._leader = handle
        try:
            while handle.reply is None and not self.closed:
                now = time.monotonic()
                until = min(now + READ_S, self._pending.next_lookup, now + READ_S if ends_at is None else ends_at)
                if until <= now:
                    return
                self._read(until - now)
        finally:
            with self._lock:
                self._leader = None

    def _read(self, timeout_s: float) -> None:
        try:
            with broker_errors():
                found = self._client.blpop([self.key], max(timeout_s, SHORTEST_READ_S))
        except BrokerUnavailable:
            if self.closed:
                return
            away_s = self._note_break()
            if away_s > PATIENCE_S:
                raise
            self._closed.wait(min(max(away_s, RECONNECT_FIRST_S), RECONNECT_MAX_S, timeout_s))
            return
        self._down_since = None
        if found:
            self._take(found[1])

    def _note_break(self) -> float:
        """Note that the connection broke; give the seconds since the broker was last seen."""
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
            with self._lock:
                self._pending.connection_broke(now)
        return now - self._down_since

    def _take(self, element: bytes | str) -> None:
        try:
            replies = decode_replies(element)  # type: ignore[arg-type]  # the client doesn't decode to str
        except InvalidRequest as exc:
            # Its requests are found through the store; the other waiters must not suffer.
            _log.warning("unreadable_reply inbox=%s error=%r", self.key, exc.message)
            return
        with self._lock:
            if were_dropped(replies):
                self._pending.connection_broke(time.monotonic())
            self._pending.settle(replies)

    def _look_up_what_is_due(self) -> None:
        with self._lock:
            ids = self._pending.due(time.monotonic())
        if not ids:
            return
        try:
            replies = self._look_up(ids)
        except (StoreUnavailable, ConfigurationError) as exc:
            # The reply may still come through the inbox, and the next lookup finds the row if it doesn't.
            _log.warning("lookup_failed requests=%d error=%r", len(ids), exc.message)
            return
        self._settle(replies)

    def _nudge(self) -> None:
        """Wake the leader out of its blocking read."""
        try:
            with broker_errors():
                self._client.rpush(self.key, NUDGE)
        except BrokerUnavailable:
            # Then the leader's own read fails too, or it ends after READ_S.
            _log.debug("nudge_failed inbox=%s", self.key)

    def close(self) -> None:
        """Stop all waiting, delete the list and close the connection. May be called again."""
        if self.closed:
            return
        self._closed.set()
        with self._lock:
            self._pending.wake_all()
            leader_is_blocked = self._leader is not None
        if leader_is_blocked:
            self._nudge()
        if self._reading.acquire(timeout=_CLOSE_S):
            self._reading.release()
        try:
            with broker_errors():
                self._client.delete(self.key)
        except BrokerUnavailable:
            # The workers gave the list a time to live.
            _log.debug("inbox_not_deleted inbox=%s", self.key)
        self._client.close()
