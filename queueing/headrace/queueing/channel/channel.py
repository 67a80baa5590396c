"""The channel: it waits for the doorbells of its queues, claims messages and delivers them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from headrace.contracts.jobs import SCORE_PREFIX
from headrace.queueing.channel import message
from headrace.queueing.channel.delivering import DeliveringChannel
from headrace.queueing.channel.doorbell import DoorbellWait
from headrace.queueing.channel.holding import EventLoopConnection
from headrace.queueing.channel.options import ROUND_ROBIN
from headrace.queueing.channel.poller import WATCH_S
from headrace.queueing.channel.publishing import ring
from headrace.queueing.channel.tracking import NEVER, ListTracker, Lookout
from headrace.queueing.connection import patience
from headrace.queueing.connection.silence import FanoutWatch, is_overdue
from headrace.queueing.consumer.claims import MAX_CLAIM, Ticket
from headrace.queueing.lists import is_model
from headrace.queueing.logs import logger
from headrace.queueing.lua.limits import CLAIM_BYTES

if TYPE_CHECKING:
    import redis

    from headrace.queueing.channel.poller import Waker

#: Messages a claim takes when there is no prefetch count: in an event loop, and for one `drain_events`, whose caller
#: may never come back for the others.
UNLIMITED_IN_LOOP: Final = 64
UNLIMITED_IN_DRAIN: Final = 1

#: A consumer of more queues than this claims from the one whose doorbell rang, rather than from all.
MANY_QUEUES: Final = 16


class Channel(DeliveringChannel):
    """A channel that claims messages when a doorbell rings, and delivers them."""

    #: How many messages of a queue may be claimed now; called by the consuming thread. None goes by the prefetch count.
    #: Whoever sets it may acknowledge by `consumer.ack` instead of `message.ack`, and must call `claim_soon` when there
    #: is room.
    window: Callable[[str], int] | None = None

    #: About how many bytes one claim may take; None leaves it to the claim.
    window_bytes: Callable[[], int] | None = None

    if TYPE_CHECKING:  # what kombu's stubs leave out
        connection_errors: tuple[type[Exception], ...]
        _in_poll: Any
        _in_listen: Any
        _brpop_sent_at: float
        _pool: redis.ConnectionPool | None
        brpop_timeout: float  # type: ignore[assignment]
        socket_timeout: float | None
        _active_queues: list[str]
        _queue_cycle: Any
        queue_order_strategy: Any

        def maybe_refresh_binding_expiry(self) -> None: ...  # noqa: D102
        def _create_client(self) -> redis.Redis: ...
        def _disconnect_pools(self) -> None: ...
        def _close_clients(self) -> None: ...
        def _flush_brpop_reauth(self) -> None: ...

    def __init__(self, connection: EventLoopConnection, **kwargs: Any) -> None:
        """Raises ConfigurationError for transport options that can't be supported."""
        self._no_ack: set[str] = set()
        self._eager = False
        #: Whether the consuming thread is at work and will look for room before it waits again. Where no event loop
        #: drives the connection nobody knows, so it is taken to wait.
        self._awake = False
        self._look_due = False
        self.waker: Waker | None = None
        self._fanout_watch = FanoutWatch()
        super().__init__(connection, **kwargs)
        self._bell = DoorbellWait(connection.connection_errors, self.keys)
        if self.socket_timeout:  # a wait that is answered later would look like a dead connection
            self.brpop_timeout = min(self.brpop_timeout, self.socket_timeout / 2)
        self._lookout = Lookout(self._track_lists, self._forget_tracker)
        self._turn = 0
        self.handlers["WAKE"] = self._wake_read
        self.handlers["TRACK"] = self._track_read

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> Any:  # type: ignore[override]
        """Consume from a queue; the lease keeper starts with the first that is acknowledged."""
        answer = super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        if queue in self.active_fanout_queues:
            return answer
        if no_ack:
            self._no_ack.add(queue)
        else:
            self._no_ack.discard(queue)
            self._keep_lease()
            if is_model(queue) or queue.startswith(SCORE_PREFIX):  # nobody asks who consumes an ordinary one
                self.consumer.queues.add(queue)
        self.connection._callbacks[queue] = partial(self._receive_message, callback, no_ack)
        self._eager = True
        self.wake()
        return answer

    def _receive_message(
        self, callback: Callable[[message.Message], Any], no_ack: bool, received: message.Message
    ) -> Any:
        if not no_ack and self.window is None:  # whoever sets a window keeps its own count
            self.qos.append(received, received.delivery_tag or "")
        return callback(received)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002
        """Take one message of a queue; return None when it is empty."""
        if not no_ack:
            self._keep_lease()
        found = self.consumer.claim({queue: 1}, no_ack=(queue,) if no_ack else ())
        if queue in self._expires:
            with self.conn_or_acquire() as client:
                self._maybe_update_queues_expire(client, queue)
        opened = self._open(found[0]) if found else None
        if opened is not None and not no_ack:
            self.qos.append(opened, opened.delivery_tag or "")
        return opened

    def _basic_cancel(self, consumer_tag: str) -> Any:
        self._end_wait()
        queue = self._tag_to_queue.get(consumer_tag)
        answer = super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        if queue is not None and queue not in self._active_queues:
            self._no_ack.discard(queue)
            self._release_pending(queue)
            if self._consumer is not None:
                with suppress(*self.connection_errors):  # then its place ends with the lease
                    self._consumer.queues.discard(queue)
        return answer

    def _release_pending(self, queue: str) -> None:
        back = [delivery for delivery in self._pending if delivery.queue == queue]
        for delivery in back:
            self._pending.remove(delivery)
        if back:
            self.consumer.release(delivery.tag for delivery in back)

    def claim_soon(self) -> None:
        """Make the consuming thread claim as soon as it can, because there may be room now; safe in any thread.

        Does nothing while that thread is awake, for it looks for room before it waits; and while it waits for the
        doorbells of all queues: it had room for each, and they were empty.
        """
        if self._awake:
            return
        if self._in_poll and not self._eager and len(self._bell.awaited) == len(self._active_queues):
            consumer = self._consumer
            if consumer is None or consumer.next_due >= self.connection.cycle.look_at:
                return
        self.wake()

    def wake(self) -> None:
        """Make the consuming thread's poll return; safe in any thread."""
        waker = self.waker
        if waker is not None:
            waker.wake()

    def prepare_wait(self) -> None:
        """Prepare for the consuming thread's wait: it wakes at once, or when a doorbell rings, or not at all."""
        self._awake = False  # before checking for room: a thread that makes room from here on must wake this one
        if self._pending:
            self.wake()
            return
        # Set before checking for room, like the above: a thread that makes room meanwhile sees that it must wake us.
        eager, self._eager = self._eager, True
        wishes = self._wishes()[0]
        if not wishes:
            return  # claim at once when room returns
        if eager or self._overlooks(wishes):
            self.wake()
        else:
            self._eager = False
            self.connection.cycle._register_BRPOP(self)

    def _overlooks(self, wishes: Mapping[str, int]) -> bool:
        """Return whether a queue has room now whose doorbell isn't among those of a wait that can be cut."""
        can_be_cut = bool(self._in_poll) and self._bell.can_be_cut
        return can_be_cut and not wishes.keys() <= self._bell.awaited.keys()

    def next_look(self, now: float) -> float:
        """Return when to `look`: a delayed message is due, or one may have come from a sender that doesn't ring."""
        if not self._in_poll or self._consumer is None:
            return NEVER
        return min(self._consumer.next_due, self._lookout.next_look(self._bell.awaited, now))

    def look(self, now: float) -> None:
        """Look for messages of senders that don't ring, and delayed ones, if the channel waits for the doorbell."""
        if not self._in_poll or self._consumer is None:
            return
        if self._consumer.next_due <= now:
            self._consumer.next_due = NEVER  # a claim learns it anew
        elif not self._lookout.look(self._bell.awaited, now):
            return
        self._look_due = True
        self.wake()

    def _track_lists(self) -> ListTracker:
        pool = self._own_pool(min(self.brpop_timeout, self.socket_timeout or self.brpop_timeout))
        tracker = ListTracker(pool, lambda queue: [self.keys.prefix + each for each in self._lists(queue)])
        self.connection.cycle.watch_for(self, "TRACK", tracker.fd)
        return tracker

    def _forget_tracker(self, tracker: ListTracker) -> None:
        if self.connection is not None and self.connection.cycle is not None:
            self.connection.cycle.unwatch(tracker.fd)

    def _track_read(self) -> bool:
        self._awake = self.connection.in_loop
        found = self._lookout.read()
        if not found or not self._in_poll:
            raise Empty
        return self._claim_and_deliver(found)

    def _wishes(self) -> tuple[dict[str, int], int]:
        """Return how many messages may be claimed now: of each queue, and in all."""
        queues: list[str] = self.active_queues
        if self.window is not None:
            return {queue: room for queue in queues if (room := self.window(queue)) > 0}, MAX_CLAIM
        limit = self.qos.room(UNLIMITED_IN_LOOP if self.connection.in_loop else UNLIMITED_IN_DRAIN)
        if limit <= 0:
            return {}, 0
        if self.queue_order_strategy != ROUND_ROBIN:
            queues = self._queue_cycle.consume(len(queues))
        return dict.fromkeys(queues, limit), min(limit, MAX_CLAIM)

    def _prepare(self, wants: dict[str, int], limit: int) -> Ticket | None:
        most_bytes = CLAIM_BYTES if self.window_bytes is None else self.window_bytes()
        return self.consumer.prepare(wants, limit=limit, no_ack=self._no_ack, most_bytes=most_bytes)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Wait for the doorbells of all queues that may be claimed; takes the place of BRPOP on the queues."""
        wants, limit = self._wishes()
        if not wants:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        self._lookout.check(self._brpop_sent_at)
        timeout_s = timeout or self.brpop_timeout
        ticket = None
        if self.connection.in_loop and len(wants) <= MANY_QUEUES:
            # Only a thread that surely comes back for the answer may have a claim sent along.
            ticket = self._prepare(wants, limit)
        if ticket is None:
            self._bell.begin(connection, wants, timeout_s, self.consumer)
        else:
            self._bell.begin_claiming(connection, wants, timeout_s, self.consumer, ticket)

    def _brpop_read(self, **options: Any) -> bool:
        self._awake = self.connection.in_loop
        if self._bell.claims:
            self._read_claim(**options)
            return self._deliver_pending()
        self._in_poll = None
        with self.broker_time:
            rang = self._bell.read_bell(self.client, **options)
        self._flush_brpop_reauth()
        wants, _ = self._wishes()
        if rang is not None and rang not in wants:
            # The token was taken in vain (the window filled up meanwhile); another worker may want it.
            with self.broker_time, self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                ring(pipe, rang)
                pipe.execute()
        if len(self._bell.awaited) <= MANY_QUEUES:
            return self._claim_and_deliver()
        self._turn += 1
        return self._claim_and_deliver({rang or list(self._bell.awaited)[self._turn % len(self._bell.awaited)]})

    def _read_claim(self, **options: Any) -> None:
        """Read the answers to a doorbell and to the claim that was sent with it."""
        self._in_poll = None
        with self.broker_time:
            found, self._eager = self._bell.read_claim(self.client, **options)
        self._pending.extend(found)
        self._flush_brpop_reauth()

    def _end_wait(self) -> None:
        """End a wait whose claim may still run, so that no message comes to a channel that wants none any more."""
        if not self._in_poll or not self._bell.claims:
            return
        if self._in_poll.is_suspect:
            self._in_poll.disconnect()
            return
        try:
            if self._bell.end(self.client):
                self._read_claim()
        except self.connection_errors as exc:
            # Messages of the claim, if it has run, come back with the lease. The connection's end is logged elsewhere.
            logger.info("queueing.wait_cut consumer=%s error=%s", self.consumer.id, exc)

    def _wake_read(self) -> bool:
        self._awake = self.connection.in_loop
        if self.waker is not None:
            self.waker.drain()
        look_due, self._look_due = self._look_due, False
        if (
            self._in_poll
            and not (look_due or self._eager or self._pending)
            and self._wishes()[0].keys() <= self._bell.awaited.keys()
        ):
            # Every queue with room was empty when it was last claimed, and its doorbell is being waited for.
            raise Empty
        return self._claim_and_deliver()

    def _claim_and_deliver(self, only: Collection[str] | None = None) -> bool:
        if not self._pending:
            wants, limit = self._wishes()
            if only is not None:
                wants = {queue: wants[queue] for queue in only if queue in wants}
            ticket = self._prepare(wants, limit)
            if ticket is not None:
                with self.broker_time:
                    found = self.consumer.run(ticket)
                self._eager = len(found) >= ticket.wish
                self._pending.extend(found)
                if not self._eager and only is None and self._overlooks(wants):
                    # They are empty, so the next message of theirs has to be heard of.
                    with self.broker_time:
                        self._bell.cut()
        return self._deliver_pending()

    def watch(self, now: float) -> None:
        """Drop the connections that have been silent for too long, so that the next turn makes new ones."""
        bound_s = self.socket_timeout
        if not bound_s:
            return
        waiting = self._in_poll
        if waiting and is_overdue(waiting, now - self._brpop_sent_at, max(bound_s - WATCH_S, 2 * self.brpop_timeout)):
            logger.warning("queueing.silent_connection waits_for=messages silent_s=%.1f", now - self._brpop_sent_at)
            patience.suspicion.raise_()
            waiting.disconnect()
            ticket = self._bell.abandon()
            if ticket is not None:
                with self.broker_time:
                    self.consumer.give_back(ticket)
        self._lookout.check(now)
        broadcasts = self.__dict__.get("subclient")
        if broadcasts is not None and self._in_listen and self._in_listen is broadcasts.connection:
            self._fanout_watch.look(broadcasts, now, bound_s)

    def close(self) -> None:
        """Send pending acknowledgements, put back the rest, and close; waits briefly for a server that is silent."""
        with patience.closing():
            if self._pool is not None:
                # One of these may have gone silent; a new connection answers soon or there is nobody.
                self._pool.disconnect(inuse_connections=False)
            self._end_wait()
            self._lookout.close()
            self._give_back()
            try:
                self._in_poll = None  # no message hangs on the doorbell, so its answer isn't waited for
                super().close()
            finally:
                self._disconnect_pools()
                self._close_clients()
                self._forget_waker()

    def _forget_waker(self) -> None:
        waker, self.waker = self.waker, None
        if waker is not None:
            waker.close()

    def _after_fork(self) -> None:
        self._lookout.close()
        self._forget_waker()
        super()._after_fork()
