"""The lease keeper: renews a consumer's lease, and brings back messages that dead consumers held.

A thread renews, and finds strays and dead consumers. Should it get no turn, a small process renews in its place: a
library may hold the GIL for an hour, and gevent and eventlet make a greenlet of the thread, which a task that blocks
their hub stops as well. What neither keeps alive is the lease of a consuming thread that hangs in a read or a write of
its broker connection: it serves nobody, so others should have its messages.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import redis.exceptions

from headrace.queueing.consumer.standby import describe, shared
from headrace.queueing.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from headrace.queueing.consumer.claims import ClaimingConsumer

#: Longest time between two renewals, however long the lease is.
MAX_RENEW_S: Final = 15.0

#: Longest time between two looks for dead consumers; with it a dead worker's requests are back within lease + 15 s.
MAX_REAP_S: Final = 10.0

#: How long `stop` waits for the thread; it is a daemon, and one that hangs in a dead socket must not hold up shutdown.
JOIN_S: Final = 0.2

#: How long a consumer lives before it gets its standby, unless it is a worker's: a script that takes one message and
#: ends needs none.
STANDBY_AFTER_S: Final = 1.0

#: How long the consuming thread may be in one read or write of its broker connection and still count as alive: several
#: times as long as a read may take before the connection counts as dead.
STUCK_S: Final = 30.0


class BrokerTime:
    """The time since the consuming thread entered a read or write of its broker connection: `with broker_time: ...`."""

    def __init__(self) -> None:
        """Starts outside."""
        self._since: float | None = None

    def __enter__(self) -> None:
        """Note that a read or write begins."""
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        """Note that it has ended."""
        self._since = None

    def is_stuck(self) -> bool:
        """Return whether it has lasted for too long."""
        since = self._since
        return since is not None and time.monotonic() - since > STUCK_S


class LeaseKeeper:
    """A thread that renews a consumer's lease every quarter of it, and reaps; survives outages of the server."""

    def __init__(
        self, consumer: ClaimingConsumer, client: Redis, *, broker_time: BrokerTime | None = None, worker: bool = True
    ) -> None:
        """client: a connection of its own, so that nothing else delays a renewal; closed when the thread ends.

        broker_time: of the thread that consumes; None where it can't hang. worker: whether it is sure to live for long,
        and so gets a standby at once.
        """
        self._consumer = consumer
        self._client = client
        self._broker_time = broker_time or BrokerTime()
        self._renew_s = min(consumer.lease_s / 4, MAX_RENEW_S)
        self._reap_s = min(consumer.lease_s / 2, MAX_REAP_S)
        self._stopped = threading.Event()
        self._away = self._stuck = False
        self._standby = shared()
        self._standby_at = time.monotonic() + (0.0 if worker else STANDBY_AFTER_S)
        self._thread = threading.Thread(target=self._run, name="headrace-lease", daemon=True)

    def start(self) -> None:
        """Start the thread, which reaps at once."""
        if time.monotonic() >= self._standby_at:
            self._brief_standby()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the standby; held messages are left as they are."""
        self._stopped.set()
        self._standby.drop(self._consumer.id)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        reap_at = renew_at = 0.0
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                if now >= renew_at:
                    renew_at = now + self._renew_s
                    self._renew()
                if now >= reap_at:
                    reap_at = now + self._reap_s
                    self._attempt(self._consumer.reap)
                if self._standby_at and time.monotonic() >= self._standby_at:
                    self._brief_standby()
                self._stopped.wait(min(renew_at, reap_at, self._standby_at or renew_at) - time.monotonic())
        finally:
            self._standby.drop(self._consumer.id)
            self._client.connection_pool.disconnect()  # `close` leaves a pool that it was given alone

    def _renew(self) -> None:
        stuck = self._broker_time.is_stuck()
        if stuck != self._stuck:
            self._stuck = stuck
            event = "queueing.lease_given_up" if stuck else "queueing.lease_taken_up_again"
            logger.warning("%s consumer=%s: its thread hangs in the broker connection", event, self._consumer.id)
        self._standby.beat(self._consumer.id, hold=stuck)
        if not stuck:
            self._attempt(self._consumer.renew)
            if not self._standby_at:
                self._brief_standby()

    def _brief_standby(self) -> None:
        """Send the standby the commands for a renewal; does nothing when it has them."""
        self._standby_at = 0.0
        if self._stopped.is_set():
            return
        try:
            described = describe(self._client.connection_pool, self._consumer.renewal_commands())
        except TypeError as exc:
            logger.info("queueing.no_standby consumer=%s reason=%s", self._consumer.id, exc)
            return
        if described:
            self._standby.take(self._consumer.id, self._renew_s, described)

    def _attempt(self, action: Callable[[Redis], object]) -> None:
        try:
            action(self._client)
        except redis.exceptions.RedisError as exc:
            if not self._away:
                self._away = True
                logger.warning("queueing.lease_not_renewed consumer=%s error=%s", self._consumer.id, exc)
        else:
            if self._away:
                self._away = False
                logger.warning("queueing.lease_renewed_again consumer=%s", self._consumer.id)
