"""A thread that keeps a consumer's lease alive and brings back what dead consumers held."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import redis.exceptions

from headrace.queueing.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from headrace.queueing.claims import ClaimingConsumer

#: Longest time between two renewals, however long the lease is.
MAX_RENEW_S: Final = 15.0

#: Longest time between two looks for dead consumers; with it a dead worker's requests are back within lease + 15 s.
MAX_REAP_S: Final = 10.0

#: How long `stop` waits for the thread; it is a daemon, and one that hangs in a dead socket must not hold up shutdown.
JOIN_S: Final = 0.2


class LeaseKeeper:
    """Renews a consumer's lease every quarter of it, and reaps; survives outages of the server."""

    def __init__(self, consumer: ClaimingConsumer, client: Redis) -> None:
        """client: a connection of its own, so that nothing else delays a renewal; closed when the thread ends."""
        self._consumer = consumer
        self._client = client
        self._renew_s = min(consumer.lease_s / 4, MAX_RENEW_S)
        self._reap_s = min(consumer.lease_s / 2, MAX_REAP_S)
        self._stopped = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="headrace-lease", daemon=True)

    def start(self) -> None:
        """Begin; reaps at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is held is left as it is."""
        self._stopped.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        reap_at = renew_at = 0.0
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                if now >= renew_at:
                    renew_at = now + self._renew_s
                    self._attempt(self._consumer.renew)
                if now >= reap_at:
                    reap_at = now + self._reap_s
                    self._attempt(self._consumer.reap)
                self._stopped.wait(min(renew_at, reap_at) - time.monotonic())
        finally:
            self._client.close()

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
