"""The inbox of a blocking client's replies. One of the waiting threads reads for all of them.

A thread of its own for reading would cost two thread switches a reply, 0.1 to 5 ms when others are busy; here a
single waiter reads its own reply from the socket. The reader is called the leader; when it has its own reply, the next
waiter leads.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import redis

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from headrace.contracts.message import Reply, were_dropped
from headrace.producers.replies.finder import Brokers, Finder, pausing_until
from headrace.producers.replies.losses import Losses
from headrace.producers.replies.pending import Pending, Standing, Waiting
from headrace.producers.replies.reading import Outage, replies_in
from headrace.producers.replies.store_lookup import RowLookup, kept_answers, without
from headrace.producers.transport.inbox_connection import LATE_S, InboxConnection, is_silence
from headrace.queueing.connection.patience import SILENCE_S

#: Asking for news more often than this gives the last answer: a loop over `done()` of many handles stays cheap.
POLL_EVERY_S: Final = 0.001

#: How long `close` waits for the leader to let go of the connection.
_CLOSE_S: Final = 1.0

#: A client that submits and never waits takes its replies this often, while it submits.
TIDY_EVERY_S: Final = 1.0

#: How long asking for a status may look for what has been away for long; it goes on when it is asked again.
STATUS_LOOK_S: Final = 2.0

#: A waiter's thread sleeps through pauses of a look up to this one, which is as late as a reply may then be taken.
SHORT_PAUSE_S: Final = 0.05

_log: Final = logging.getLogger(__name__)


class Inbox:
    """Reads the replies to one client; usable from several threads."""

    def __init__(
        self,
        url: str,
        key: str,
        rows: RowLookup,
        brokers: Brokers[redis.Redis],
        lease_s: float,
        silence_s: float = SILENCE_S,
    ) -> None:
        """key: the list to read. rows: the way to the store.

        lease_s: how long a dead worker keeps requests to itself. silence_s: a connection that is silent for so long is
        replaced.
        """
        self.key = key
        self._connection = InboxConnection(url, key, silence_s)
        self._looks = brokers.looks
        self._rows = rows
        self._pending = Pending()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._leader: Waiting | None = None
        self._silent = False
        self._polled_at = 0.0
        self._closed = threading.Event()
        self._losses = Losses(lease_s)
        self._outage = Outage(self._pending, self._losses)
        self._finder = Finder(brokers, self._losses, self._pending, self._lock, self._read_store, self._wake_leader)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @property
    def silent(self) -> bool:
        """Whether the last read ended without an answer; asking the broker more would take as long."""
        return self._silent

    def expect(
        self, handles: Sequence[Waiting], deadline_s: float | None = None, kept: uuid.UUID | None = None
    ) -> Standing:
        """Take replies to these requests from now on; call it before they are sent, and `sent` thereafter.

        kept: the row that keeps durable ones. Raises BrokerUnavailable, the first time only, and not for durable ones.
        """
        if kept is None and not self._losses.identity_known:
            self._finder.learn()
        standing = self._losses.standing(time.monotonic(), deadline_s, kept)
        with self._lock:
            self._pending.add(handles, standing)
        return standing

    def sent(self, handles: Sequence[Waiting], standing: Standing) -> None:
        """Take note that requests were sent. standing: of `expect`."""
        if handles and (handles[0].standing is not standing or self._losses.is_past(standing)):
            with self._lock:
                self._losses.doubt(handles, standing)

    def find(self, request_id: str, model: str) -> Waiting | None:
        """Return an unanswered request. Raises InvalidRequest when its id was given to another model."""
        with self._lock:
            return self._pending.find(request_id, model)

    def settle(self, handle: Waiting, replies: Sequence[Reply]) -> None:
        """Settle a request with a reply that came another way than through the inbox."""
        with self._lock:
            self._pending.adopt(handle)
        self._settle(replies)

    def check(self, handle: Waiting) -> None:
        """Search for a lost request if there is a reason to, such as an age of more than a lease."""
        with self._lock:
            due = handle.reply is None and self._losses.asked_for(handle, time.monotonic())
        if due:
            self._finder.go_on(pausing_until(time.monotonic() + STATUS_LOOK_S), at_once=True)

    def _read_store(self, handles: Collection[Waiting]) -> set[str]:
        replies, known = self._rows.whereabouts(handles)
        self._settle(replies)
        return known

    def _settle(self, replies: Sequence[Reply]) -> None:
        with self._lock:
            self._pending.found_in_store(replies, time.monotonic())
        self._wake_leader()

    def _wake_leader(self) -> None:
        """Wake the leader out of its blocking read if it has nothing to wait for."""
        leader = self._leader
        if leader is not None and leader.ended:
            self._connection.nudge()

    def poll(self, handle: Waiting) -> None:
        """Take all replies that have arrived, without waiting, unless that was done just now. Raises BrokerUnavailable.

        handle: what is asked about; its reply may have been lost, so its row is looked for now and then.
        """
        if time.monotonic() - self._polled_at >= POLL_EVERY_S:
            self._poll_now(self._connection.silence_s)
            self._finder.go_on()
        if handle.reply is None:
            with self._lock:
                self._pending.ask(handle, time.monotonic())
            self._look_up_what_is_due()

    def may_look_up(self, handle: Waiting) -> bool:
        """Return whether a call for a request's status may look its row up; not again at once."""
        with self._lock:
            return self._pending.may_look_up(handle, time.monotonic())

    def tidy(self) -> None:
        """Take all replies that have arrived, if that was last done long ago: replies without waiters pile up."""
        if time.monotonic() - self._polled_at >= TIDY_EVERY_S:
            try:
                self._poll_now(self._connection.silence_s)
            except BrokerUnavailable as exc:
                # Nobody asked for these replies; who waits for them will read again.
                _log.debug("tidy_failed inbox=%s error=%r", self.key, exc.message)

    def _poll_now(self, timeout_s: float) -> None:
        if self.closed or not self._reading.acquire(blocking=False):
            return
        self._polled_at = time.monotonic()
        try:
            for element in self._connection.take(timeout_s):
                self._take(element)
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
        if handle.ended or (timeout_s is not None and timeout_s <= 0):
            self._poll_now(LATE_S)
            return
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        with self._watching(handle) as woken:
            while not handle.ended and not self.closed:
                left_s = self._connection.read_s if ends_at is None else ends_at - time.monotonic()
                if left_s <= 0:
                    self._poll_at_last()
                    return
                if self._reading.acquire(blocking=False):
                    try:
                        self._lead(handle, ends_at)
                    finally:
                        self._reading.release()
                        self._call_next_leader()
                    if handle.reply is None and (ends_at is None or time.monotonic() < ends_at):
                        self._look_up_what_is_due()
                        self._finder.go_on(lambda seconds: self._pause(seconds, handle, woken, ends_at))
                else:
                    woken.wait(None if ends_at is None else left_s)
                    woken.clear()

    def _pause(self, seconds: float, handle: Waiting, woken: threading.Event, ends_at: float | None) -> bool:
        """Wait between two pieces of a look, for replies too; False when there is something better to do.

        A blocking read is no pause: a server that is idle looks only ten times a second whether its time is over.
        """
        if seconds > SHORT_PAUSE_S or (ends_at is not None and time.monotonic() + seconds > ends_at):
            return False
        self._poll_now(LATE_S)
        if not handle.ended and not self.closed:
            woken.wait(seconds)
            woken.clear()
        return not handle.ended and not self.closed

    def _poll_at_last(self) -> None:
        """Take all replies when the time of a waiter is up: it does not wait for a second silent connection."""
        if self._silent:
            return
        try:
            self._poll_now(LATE_S)
        except BrokerUnavailable as exc:
            if not is_silence(exc):
                raise
            self._silent = True

    @contextmanager
    def _watching(self, handle: Waiting) -> Iterator[threading.Event]:
        woken = threading.Event()
        now = time.monotonic()
        with self._lock:
            if not self._pending.is_watched:
                self._losses.begin_probing(handle)
            self._losses.adopt(handle)
            self._pending.watch(handle, woken.set, now)
        try:
            yield woken
        finally:
            with self._lock:
                self._pending.unwatch(handle, woken.set)
            self._call_next_leader()

    def _call_next_leader(self) -> None:
        """Wake one waiter to read, if no thread does."""
        with self._lock:
            if not self._reading.locked():
                self._pending.wake_one()

    def _lead(self, handle: Waiting, ends_at: float | None) -> None:
        """Read until this request has its reply, the time is up, or something must be looked up in the store."""
        with self._lock:
            self._leader = handle
        read_s, late_s = self._connection.read_s, self._connection.late_s
        try:
            while not handle.ended and not self.closed:
                now = time.monotonic()
                left_s = math.inf if ends_at is None else ends_at - now
                wait_s = min(read_s, self._pending.next_lookup - now, self._losses.due_at - now, left_s)
                if wait_s <= 0:
                    return
                self._read(wait_s, late_s if left_s > read_s + late_s else LATE_S)
        finally:
            with self._lock:
                self._leader = None

    def _read(self, timeout_s: float, late_s: float) -> None:
        try:
            element = self._connection.read(timeout_s, late_s)
        except BrokerUnavailable as exc:
            if self.closed:
                return
            self._silent = is_silence(exc)
            with self._lock:
                pause_s = self._outage.pause_s(time.monotonic(), exc)
            self._closed.wait(min(pause_s, timeout_s))
            return
        self._outage.since, self._silent = None, False
        if element is not None:
            self._take(element)

    def _take(self, element: bytes) -> None:
        replies = replies_in(element, self.key)
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
            replies = self._rows.replies(ids)
        except (StoreUnavailable, ConfigurationError) as exc:
            # The reply may still come through the inbox, and the next lookup finds the row if it doesn't.
            _log.warning("lookup_failed requests=%d error=%r", len(ids), exc.message)
            return
        self._settle(replies)
        self.take_kept(without(ids, replies))

    def take_kept(self, request_ids: Sequence[str]) -> None:
        """Take the replies to requests that ended without a row."""
        try:
            replies = kept_answers(self._looks, request_ids)
        except BrokerUnavailable as exc:
            _log.debug("lookup_failed requests=%d error=%r", len(request_ids), exc.message)
            return
        with self._lock:
            self._pending.settle(replies)

    def close(self) -> None:
        """Stop all waiting, delete the list and close the connection. May be called again."""
        if self.closed:
            return
        self._closed.set()
        with self._lock:
            self._pending.wake_all()
            leader_is_blocked = self._leader is not None
        if leader_is_blocked:
            self._connection.nudge()
        if self._reading.acquire(timeout=_CLOSE_S):
            self._reading.release()
        self._connection.close()
