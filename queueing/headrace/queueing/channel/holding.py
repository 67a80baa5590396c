"""The consumer of a channel, the keeper of its lease, and acknowledgements that wait to be sent together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol

import redis

from headrace.queueing.channel.options import ROUND_ROBIN, check_options
from headrace.queueing.channel.poller import DoorbellPoller
from headrace.queueing.channel.publishing import PublishingChannel
from headrace.queueing.channel.qos import QoS as LeasedQoS
from headrace.queueing.connection.refusals import REFUSALS
from headrace.queueing.consumer.claims import ClaimingConsumer
from headrace.queueing.consumer.delivery import Delivery
from headrace.queueing.consumer.lease import BrokerTime, LeaseKeeper
from headrace.queueing.keys import attach
from headrace.queueing.logs import logger

DEFAULT_LEASE_S: Final = 60.0


class EventLoopConnection(Protocol):
    """The side of a transport that its channels see."""

    #: kombu's connection, with its options.
    client: Any
    cycle: DoorbellPoller
    connection_errors: tuple[type[Exception], ...]
    _callbacks: dict[str, Callable[..., Any]]

    #: Whether an event loop drives the connection, rather than calls to `drain_events`.
    in_loop: bool


class HoldingChannel(PublishingChannel):
    """A channel that holds messages under a lease; it adds the options `lease_s`, `max_message_bytes` (0: no limit)."""

    QoS = LeasedQoS
    connection: EventLoopConnection  # type: ignore[assignment]
    qos: LeasedQoS

    from_transport_options = (*PublishingChannel.from_transport_options, "lease_s", "max_message_bytes")

    lease_s: float = DEFAULT_LEASE_S
    max_message_bytes: int = 0

    if TYPE_CHECKING:  # what kombu's stubs leave out
        _qos: LeasedQoS | None
        _pool: redis.ConnectionPool | None
        queue_order_strategy: Any
        socket_timeout: float | None

    def __init__(self, connection: EventLoopConnection, **kwargs: Any) -> None:
        """Raises ConfigurationError for transport options that can't be supported."""
        #: Claimed and not delivered yet.
        self._pending: deque[Delivery] = deque()
        self._acks: deque[str] = deque()
        self._consumer: ClaimingConsumer | None = None
        self._keeper: LeaseKeeper | None = None
        #: Since when the consuming thread is in the connection to the broker.
        self.broker_time = BrokerTime()
        check_options(getattr(connection.client, "transport_options", None) or {})
        super().__init__(connection, **kwargs)
        self.__dict__.pop("QoS", None)  # ack_emulation=False would put in kombu's, which holds nothing

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

    def claim_soon(self) -> None:
        """Make the consuming thread claim as soon as it can, because there may be room now; safe in any thread."""
        raise NotImplementedError

    def ack_soon(self, tag: str) -> None:
        """Acknowledge a message with the others of this turn of the event loop; at once where there is none."""
        self._acks.append(tag)
        cycle = self.connection.cycle if self.connection is not None else None
        if cycle is None or not self.connection.in_loop or cycle.thread != get_ident():
            self.flush_acks()
            self.claim_soon()

    def flush_acks(self) -> None:
        """Send the gathered acknowledgements."""
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
        tags = list(self._acks)
        self._acks.clear()
        try:
            consumer.ack(tags)
        except (redis.ConnectionError, redis.TimeoutError, *REFUSALS) as exc:
            logger.warning("queueing.acks_lost consumer=%s messages=%d error=%s", consumer.id, len(tags), exc)
        consumer.close()

    def _after_fork(self) -> None:
        # The parent's thread does not exist here, and its sockets and messages are not ours.
        self._keeper = self._consumer = None
        self._pending.clear()
        self._acks.clear()
        super()._after_fork()  # type: ignore[misc]
