"""A channel of the transport: what it consumes, holds, acknowledges and publishes; see `transport` for the idea."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import redis

from headrace.queueing.channel import message
from headrace.queueing.channel.doorbell import DoorbellWait
from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.options import ROUND_ROBIN, check_options
from headrace.queueing.channel.poller import WATCH_S
from headrace.queueing.channel.publishing import PublishingChannel, ring
from headrace.queueing.channel.qos import QoS as LeasedQoS
from headrace.queueing.channel.tracking import NEVER, ListTracker, Lookout
from headrace.queueing.connection import patience
from headrace.queueing.connection.refusals import REFUSALS
from headrace.queueing.connection.silence import FanoutWatch, is_overdue
from headrace.queueing.consumer.claims import MAX_CLAIM, ClaimingConsumer, Delivery, Ticket
from headrace.queueing.consumer.lease import BrokerTime, LeaseKeeper
from headrace.queueing.keys import attach
from headrace.queueing.lists import is_model
from headrace.queueing.logs import logger
from headrace.queueing.lua.scripts import CLAIM_BYTES

if TYPE_CHECKING:
    from headrace.queueing.channel.poller import Waker
    from headrace.queueing.transport import Transport

#: Messages a claim takes when there is no prefetch count: in an event loop, and for one `drain_events`, whose caller
#: may never come back for the others.
UNLIMITED_IN_LOOP: Final = 64
UNLIMITED_IN_DRAIN: Final = 1

#: How long messages are delivered before the event loop gets a turn, which sends acknowledgements and reads broadcasts.
#: Matters where delivering means executing, as in Celery's solo pool.
TURN_S: Final = 0.005

DEFAULT_LEASE_S: Final = 60.0

#: A consumer of more queues than this claims from the one whose doorbell rang, rather than from all.
MANY_QUEUES: Final = 16


class Channel(PublishingChannel):
    """A channel that claims. Transport options besides kombu's: `lease_s`, `max_message_bytes` (0: no limit)."""

    QoS = LeasedQoS
    Message = message.Message
    connection: Transport
    qos: LeasedQoS

    from_transport_options = (*PublishingChannel.from_transport_options, "lease_s", "max_message_bytes")

    lease_s: float = DEFAULT_LEASE_S
    max_message_bytes: int = 0

    #: How many messages of a queue may be claimed now; called by the consuming thread. None goes by the prefetch count.
    #: Who sets it may acknowledge by `consumer.ack` instead of `message.ack`, and must `claim_soon` when there is room.
    window: Callable[[str], int] | None = None

    #: About how many bytes one claim may take; None leaves it to the claim.
    window_bytes: Callable[[], int] | None = None

    #: Takes messages that came back from a consumer that died or lost its lease, unopened: opening one may be what
    #: killed it. Called by the consuming thread, on which `pass_on` or `dead_letter_garbage` must follow. None opens
    #: them like all others.
    returned: Callable[[Delivery], None] | None = None

    #: Takes messages whose body can't be read, and answers and settles them. None moves them to the dead letters.
    unreadable: Callable[[message.UnreadableBody], None] | None = None

    if TYPE_CHECKING:  # what kombu's stubs leave out
        connection_errors: tuple[type[Exception], ...]
        _qos: LeasedQoS | None
        _in_poll: Any
        _in_listen: Any
        _brpop_sent_at: float
        _pool: redis.ConnectionPool | None
        brpop_timeout: float  # type: ignore[assignment]
        socket_timeout: float | None
        _active_queues: list[str]
        _queue_cycle: Any
        queue_order_strategy: Any

        def _create_client(self) -> redis.Redis: ...
        def _disconnect_pools(self) -> None: ...
        def _close_clients(self) -> None: ...
        def _flush_brpop_reauth(self) -> None: ...

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        """Raises ConfigurationError for transport options that can't be supported."""
        self._pending: deque[Delivery] = deque()
        self._acks: deque[str] = deque()
        self._no_ack: set[str] = set()
        self._eager = False
        #: Whether the consuming thread is at work and will look for room before it waits again. Where no event loop
        #: drives the connection nobody knows, so it is taken to wait.
        self._awake = False
        self._look_due = False
        self._consumer: ClaimingConsumer | None = None
        self._keeper: LeaseKeeper | None = None
        #: Since when the consuming thread is in the connection to the broker.
        self.broker_time = BrokerTime()
        self.waker: Waker | None = None
        self._fanout_watch = FanoutWatch()
        check_options(getattr(connection.client, "transport_options", None) or {})
        super().__init__(connection, **kwargs)
        self._bell = DoorbellWait(connection.connection_errors, self.keys)
        if self.socket_timeout:  # a wait that is answered later would look like a dead connection
            self.brpop_timeout = min(self.brpop_timeout, self.socket_timeout / 2)
        self._lookout = Lookout(self._track_lists, self._forget_tracker)
        self._turn = 0
        self.handlers["WAKE"] = self._wake_read
        self.handlers["TRACK"] = self._track_read
        self.__dict__.pop("QoS", None)  # ack_emulation=False would put in kombu's, which holds nothing

    # -- consuming ---------------------------------------------------------------------------------------------------

    @property
    def consumer(self) -> ClaimingConsumer:
        """The consumer that holds what this channel has claimed."""
        if self._consumer is None:
            self._consumer = ClaimingConsumer(
                redis.Redis(connection_pool=self.pool),  # not kombu's, which knows some of our keys' commands
                lease_s=float(self.lease_s),
                max_message_bytes=int(self.max_message_bytes),
            )
            self._consumer.takes_turns = self.queue_order_strategy == ROUND_ROBIN
        return self._consumer

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
            if is_model(queue):  # nobody asks who consumes an ordinary one
                self.consumer.queues.add(queue)
        self.connection._callbacks[queue] = partial(self._receive_message, callback, no_ack)
        self._eager = True
        self.wake()
        return answer

    def _receive_message(
        self, callback: Callable[[message.Message], Any], no_ack: bool, received: message.Message
    ) -> Any:
        if not no_ack and self.window is None:  # who sets a window counts for itself
            self.qos.append(received, received.delivery_tag or "")
        return callback(received)

    def _keep_lease(self) -> None:
        if self._keeper is None:
            # A server that vanished must not hold up the next renewal.
            timeout_s = max(min(self.lease_s / 4, self.socket_timeout or self.lease_s), 1.0)
            client = redis.Redis(connection_pool=self._own_pool(timeout_s))
            # A worker says how much it takes in advance, or has an event loop; scripts do neither.
            worker = self.connection.in_loop or self.qos.prefetch_count > 0
            self._keeper = LeaseKeeper(self.consumer, client, broker_time=self.broker_time, worker=worker)
            self._keeper.start()

    def _own_pool(self, timeout_s: float) -> redis.ConnectionPool:
        """Return a pool for one user alone."""
        params = self._connparams()
        params["socket_timeout"] = timeout_s
        if "socket_connect_timeout" in params:  # not so for a Unix socket
            params["socket_connect_timeout"] = timeout_s
        pool = redis.ConnectionPool(**params)
        attach(pool, self.keys)
        return pool

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:  # noqa: ARG002
        """Take one message of a queue, or give None when it is empty."""
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
        """Before the consuming thread waits: see that it wakes at once, or when the doorbell rings, or not at all."""
        self._awake = False  # before looking for room: another thread that makes room from here on must wake this one
        if self._pending:
            self.wake()
            return
        # Said before looking for room, like the above: what makes room meanwhile finds that it has to call.
        eager, self._eager = self._eager, True
        if not self._wishes()[0]:
            return  # claim at once when room returns
        if eager:
            self.wake()
        else:
            self._eager = False
            self.connection.cycle._register_BRPOP(self)

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
        """How many messages may be claimed now: of each queue, and in all."""
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
            self._bell.begin(connection, wants, timeout_s)
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
            # What the claim may have taken comes back with its lease. That the connection broke is said elsewhere.
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
        return self._deliver_pending()

    def _deliver_pending(self) -> bool:
        delivered = 0
        turn_ends = time.monotonic() + (TURN_S if self.connection.in_loop else 0.0)
        while self._pending:
            delivered += self._deliver(self._pending.popleft())
            if delivered and time.monotonic() >= turn_ends:
                break
        if not delivered:
            raise Empty
        return True

    def _deliver(self, delivery: Delivery) -> int:
        callback = self.connection._callbacks.get(delivery.queue)
        if callback is None:
            self.consumer.release([delivery.tag])
            return 0
        if self.queue_order_strategy != ROUND_ROBIN:
            self._queue_cycle.rotate(delivery.queue)
        if delivery.deliveries and delivery.tag and self.returned is not None:
            self.returned(delivery)
            return 1
        opened = self._open(delivery)
        if opened is None:
            return 0
        callback(opened)
        return 1

    def pass_on(self, delivery: Delivery, opened: message.Message) -> None:
        """Deliver what `returned` took and has opened."""
        callback = self.connection._callbacks.get(delivery.queue)
        if callback is None:
            self.consumer.release([delivery.tag])
        else:
            callback(opened)

    def _open(self, delivery: Delivery) -> message.Message | None:
        """Make a kombu message of a delivery; garbage goes to the dead letters."""
        try:
            return message.open_delivery(delivery, self)
        except NotAnEnvelope as exc:
            self.dead_letter_garbage(delivery, exc)
            return None

    def dead_letter_garbage(self, delivery: Delivery, cause: NotAnEnvelope) -> None:
        """Move a delivery that is no message to the dead letters, after who sent it was answered, if that can be."""
        if isinstance(cause, message.UnreadableBody) and delivery.tag and self.unreadable is not None:
            self.unreadable(cause)
            return
        logger.error("queueing.dead_lettered queue=%s bytes=%d error=%s", delivery.queue, delivery.message_bytes, cause)
        if delivery.tag:
            self.consumer.dead_letter(delivery.tag, f"not a Celery message: {cause}", [])

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

    # -- acknowledging -----------------------------------------------------------------------------------------------

    def ack_soon(self, tag: str) -> None:
        """Acknowledge with all others of this turn of the event loop; at once where there is none."""
        self._acks.append(tag)
        cycle = self.connection.cycle if self.connection is not None else None
        if cycle is None or not self.connection.in_loop or cycle.thread != get_ident():
            self.flush_acks()
            self.claim_soon()

    def flush_acks(self) -> None:
        """Send the acknowledgements that were gathered."""
        if not self._acks:
            return
        tags: list[str] = []
        with suppress(IndexError):  # another thread may flush too
            while True:
                tags.append(self._acks.popleft())
        if self._consumer is not None:
            self._consumer.ack(tags)

    def release(self, tags: Iterable[str]) -> None:
        """Put messages back at the head of their queues."""
        if self._consumer is not None:
            self._consumer.release(tags)
            self.claim_soon()

    def requeue(self, tag: str) -> None:
        """Put a message back behind all that wait at its priority."""
        if self._consumer is not None:
            self._consumer.requeue([tag])
            self.claim_soon()

    def release_all(self) -> None:
        """Put back all that this channel holds."""
        self.flush_acks()
        self._pending.clear()
        if self._consumer is not None:
            self._consumer.release()
            self.claim_soon()

    # -- closing -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Acknowledge what is to be acknowledged, put back the rest, and close; not for long where nobody answers."""
        with patience.closing():
            if self._pool is not None:
                # One of these may have gone silent; a new connection answers soon or there is nobody.
                self._pool.disconnect(inuse_connections=False)
            self._end_wait()
            self._give_back()
            try:
                self._in_poll = None  # no message hangs on the doorbell, so its answer isn't waited for
                super().close()
            finally:
                self._disconnect_pools()
                self._close_clients()
                self._forget_waker()

    def _give_back(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        self._pending.clear()
        if self._qos is not None:
            self._qos._delivered.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._lookout.close()
        tags = list(self._acks)
        self._acks.clear()
        try:
            consumer.ack(tags)
        except (redis.ConnectionError, redis.TimeoutError, *REFUSALS) as exc:
            logger.warning("queueing.acks_lost consumer=%s messages=%d error=%s", consumer.id, len(tags), exc)
        consumer.close()

    def _forget_waker(self) -> None:
        waker, self.waker = self.waker, None
        if waker is not None:
            waker.close()

    def _after_fork(self) -> None:
        # The parent's thread does not exist here, and its sockets and messages are not ours.
        self._keeper = self._consumer = None
        self._pending.clear()
        self._acks.clear()
        self._lookout.close()
        self._forget_waker()
        super()._after_fork()  # type: ignore[misc]
