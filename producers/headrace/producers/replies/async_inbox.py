"""The inbox of an asyncio client's replies. One task reads while requests are unanswered, and ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections.abc import Sequence
from typing import Final

import redis.asyncio

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from headrace.contracts.message import Reply, were_dropped
from headrace.producers.replies.finder import AsyncFinder, Brokers
from headrace.producers.replies.losses import PROBE_EVERY_S, Losses
from headrace.producers.replies.pending import Pending, Standing, Waiting
from headrace.producers.replies.reading import Outage, replies_in
from headrace.producers.replies.store_lookup import RowLookup, kept_answers_async, without
from headrace.producers.transport.connections import broker_errors, connect_for_reading_async
from headrace.producers.transport.inbox_connection import NUDGE, read_for_s
from headrace.queueing.connection.patience import SILENCE_S

#: How long a cancelled task may take to end before it is woken.
_CANCEL_S: Final = 0.1

#: How long a look-up in the store may take that runs when the inbox is closed.
_LOOK_UP_S: Final = 1.0

_log: Final = logging.getLogger(__name__)


class AsyncInbox:
    """Reads the replies to one asyncio client; belongs to one event loop."""

    def __init__(
        self,
        url: str,
        key: str,
        rows: RowLookup,
        brokers: Brokers[redis.asyncio.Redis],
        lease_s: float,
        silence_s: float = SILENCE_S,
    ) -> None:
        """key: the list to read. rows: the way to the store, which blocks.

        lease_s: how long a dead worker keeps requests to itself. silence_s: a connection that is silent for so long is
        replaced.
        """
        self.key = key
        self.closed = False
        self._looks = brokers.looks
        self._client = connect_for_reading_async(url, silence_s)
        self._read_s = read_for_s(silence_s)
        self._rows = rows
        self._pending = Pending()
        self._reader: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._failure: BaseException | None = None
        self._losses = Losses(lease_s)
        self._outage = Outage(self._pending, self._losses)
        self._finder = AsyncFinder(brokers, self._losses, self._pending, rows.whereabouts)
        self._look: asyncio.Task[None] | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    async def expect(
        self, handles: Sequence[Waiting], deadline_s: float | None = None, kept: uuid.UUID | None = None
    ) -> Standing:
        """Take replies to these requests from now on; await it before they are sent, and call `sent` thereafter.

        kept: the row that keeps durable ones. Raises BrokerUnavailable, the first time only, and not for durable ones.
        """
        if kept is None and not self._losses.identity_known:
            await self._finder.learn()
        standing = self._losses.standing(time.monotonic(), deadline_s, kept)
        self._pending.add(handles, standing)
        self._read_on()
        return standing

    def sent(self, handles: Sequence[Waiting], standing: Standing) -> None:
        """Take note that requests were sent. standing: of `expect`."""
        if handles and (handles[0].standing is not standing or self._losses.is_past(standing)):
            self._losses.doubt(handles, standing)

    def find(self, request_id: str, model: str) -> Waiting | None:
        """Return an unanswered request. Raises InvalidRequest when its id was given to another model."""
        return self._pending.find(request_id, model)

    def kept(self, handles: Sequence[Waiting], kept: uuid.UUID) -> None:
        """Take note of the row that keeps durable requests, once it is known."""
        if handles:
            standing = handles[0].standing._replace(kept=kept)
            for handle in handles:
                handle.standing = standing

    def settle(self, handle: Waiting, replies: Sequence[Reply]) -> None:
        """Settle a request with a reply that came another way than through the inbox."""
        self._pending.adopt(handle)
        self._pending.settle(replies)

    def ask(self, handle: Waiting) -> None:
        """Have a request's row looked up now and then, since its reply may have been lost."""
        if not self.closed:
            self._pending.ask(handle, time.monotonic())
            self._set_timer()

    def may_look_up(self, handle: Waiting) -> bool:
        """Return whether a call for a request's status may look its row up; not again at once."""
        return self._pending.may_look_up(handle, time.monotonic())

    async def check(self, handle: Waiting) -> None:
        """Search for a lost request if there is a reason to, such as an age of more than a lease."""
        if handle.reply is None and self._losses.asked_for(handle, time.monotonic()):
            await self._finder.go_through()

    async def wait(self, handle: Waiting, timeout_s: float | None) -> None:
        """Wait until a request has its reply, the time is up or the inbox is closed.

        Raises BrokerUnavailable when the broker was away for PATIENCE_S.
        """
        woken, now = asyncio.Event(), time.monotonic()
        if not self._pending.is_watched:
            self._losses.begin_probing(handle)
        self._losses.adopt(handle)
        self._pending.watch(handle, woken.set, now)
        self._set_timer()
        self._look_later()
        self._read_on()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while not handle.ended and not self.closed and self._failure is None:
                        await woken.wait()
                        woken.clear()
        finally:
            self._pending.unwatch(handle, woken.set)
        if not handle.ended and self._failure is not None:
            raise self._failure

    def _read_on(self) -> None:
        if not self.closed and (self._reader is None or self._reader.done()):
            self._failure = None
            self._reader = asyncio.create_task(self._read_all(), name="headrace-inbox")
            self._reader.add_done_callback(self._reader_ended)

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        """Wake all waiters, after keeping the reader's failure for them."""
        if not reader.cancelled():
            self._failure = reader.exception()
        self._pending.wake_all()

    async def _read_all(self) -> None:
        while len(self._pending) and not self.closed:
            await self._read()

    async def _read(self) -> None:
        try:
            with broker_errors():
                found = await self._client.blpop([self.key], self._read_s)
        except BrokerUnavailable as exc:
            pause_s = self._outage.pause_s(time.monotonic(), exc)
            self._set_timer()
            await asyncio.sleep(pause_s)
            return
        self._outage.since = None
        if found:
            self._take(found[1])  # type: ignore[arg-type]  # the client doesn't decode to str

    def _take(self, element: bytes) -> None:
        replies = replies_in(element, self.key)
        if were_dropped(replies):
            self._pending.connection_broke(time.monotonic())
            self._set_timer()
        self._pending.settle(replies)

    def _set_timer(self) -> None:
        """Have `_look_up_what_is_due` called when something is due."""
        at = self._pending.next_lookup
        if at < self._timer_at and not self.closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            wait_s = max(at - time.monotonic(), 0)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look_up_what_is_due)

    def _look_up_what_is_due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._looking is not None and not self._looking.done():
            return
        ids = self._pending.due(time.monotonic())
        if not ids:
            self._set_timer()
            return
        self._looking = asyncio.create_task(self._find_rows(ids), name="headrace-lookup")
        self._looking.add_done_callback(lambda _: self._set_timer())

    def _look_later(self) -> None:
        """Schedule the next search for lost requests, while there are waiters."""
        if self._look_timer is None and not self.closed:
            wait_s = max(self._losses.due_at - time.monotonic(), 0)
            self._look_timer = asyncio.get_running_loop().call_later(min(wait_s, PROBE_EVERY_S), self._look_if_due)

    def _look_if_due(self) -> None:
        self._look_timer = None
        if not self._pending.is_watched:
            return
        if time.monotonic() < self._losses.due_at or (self._look is not None and not self._look.done()):
            self._look_later()
            return
        self._look = asyncio.create_task(self._finder.go_through(), name="headrace-finder")
        self._look.add_done_callback(lambda _: self._look_later())

    async def _find_rows(self, ids: list[str]) -> None:
        try:
            replies = await asyncio.to_thread(self._rows.replies, ids)
        except (StoreUnavailable, ConfigurationError) as exc:
            # The reply may still come through the inbox, and the next lookup finds the row if it doesn't.
            _log.warning("lookup_failed requests=%d error=%r", len(ids), exc.message)
            return
        self._pending.found_in_store(replies, time.monotonic())
        await self.take_kept(without(ids, replies))

    async def take_kept(self, request_ids: Sequence[str]) -> None:
        """Take the replies to requests that ended without a row."""
        try:
            self._pending.settle(await kept_answers_async(self._looks, request_ids))
        except BrokerUnavailable as exc:
            _log.debug("lookup_failed requests=%d error=%r", len(request_ids), exc.message)

    async def close(self) -> None:
        """Stop all waiting, delete the list and close the connection. May be called again."""
        if self.closed:
            return
        self.closed = True
        self._pending.wake_all()
        for timer in (self._timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        await self._end_tasks()
        try:
            with broker_errors():
                await self._looks.delete(self.key)
        except BrokerUnavailable:
            # The workers gave the list a time to live.
            _log.debug("inbox_not_deleted inbox=%s", self.key)
        await self._client.aclose()

    async def _end_tasks(self) -> None:
        if self._looking is not None:
            # Its thread would go on without it, and open a connection that nobody closes any more.
            await asyncio.wait({self._looking}, timeout=_LOOK_UP_S)
        alive = {task for task in (self._reader, self._looking, self._look) if task is not None}
        for task in alive:
            task.cancel()
        if alive:
            _, alive = await asyncio.wait(alive, timeout=_CANCEL_S)
        if alive:
            # redis-py loses a cancellation that comes while it connects; then an empty element ends the read.
            with contextlib.suppress(BrokerUnavailable), broker_errors():
                await self._looks.rpush(self.key, NUDGE)
            await asyncio.wait(alive, timeout=self._read_s)
