"""The upkeep of leases: renewal, messages that a consumer or the server lost track of, and what dead consumers held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis.exceptions

from headrace.queueing.connection.connect import Command
from headrace.queueing.connection.refusals import REFUSALS
from headrace.queueing.consumer.settling import SettlingConsumer
from headrace.queueing.logs import logger
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis


class RenewingConsumer(SettlingConsumer):
    """A consumer that keeps its lease, and brings back what consumers without one held."""

    def __init__(self, client: Redis, *, lease_s: float, max_message_bytes: int = 0) -> None:
        """See SettlingConsumer."""
        super().__init__(client, lease_s=lease_s, max_message_bytes=max_message_bytes)
        self._renew = scripts.script(client, scripts.RENEW)
        self._renewal_text = scripts.rendered(scripts.RENEW, self._keys)
        self._release_all = scripts.script(client, scripts.RELEASE_ALL)

    def renew(self, client: Redis | None = None) -> None:
        """Extend the lease on all held messages, and with a second command the place among its queues' consumers.

        Also finds strays: messages that the server holds for us and we don't know of, because the answer to a claim
        or the pipeline of an acknowledgement was lost with its connection. Those seen twice in a row go back. And
        notices that the lease had ended: a crash that was noted of it is taken back.
        client: a connection of the caller's own, or None for the consumer's.
        """
        self._notice_fork()
        held = list(self._held)
        self.queues.renew(client)
        in_flight, has_lost = self._renew(args=[self._id, self._lease_ms], client=client)
        if has_lost:
            self._notice_loss(client or self.client)
        self._notice_gone(held, in_flight, client or self.client)
        if in_flight <= len(self._held):
            self._strays = set()
            return
        self._return_strays(client or self.client)

    def _notice_gone(self, held: list[str], in_flight: int, client: Redis) -> None:
        """Log how many messages the server has lost: those held before it counted them, and still held."""
        still = [tag for tag in held if tag in self._held]
        if in_flight >= len(still):
            return
        known = {field.decode() for field in client.hkeys(self._keys.in_flight(self._id))}  # type: ignore[union-attr]
        with self._lock:
            gone = [tag for tag in still if tag not in known and self._held.pop(tag, None) is not None]
        if gone:
            logger.error("queueing.in_flight_gone consumer=%s messages=%d", self._id, len(gone))

    def renewal_commands(self) -> list[Command]:
        """Return the commands by which somebody else may renew, without knowing their meaning."""
        self._notice_fork()
        renewal: Command = ("EVAL", self._renewal_text, 0, self._id, self._lease_ms)
        return [renewal, *self.queues.renewal_commands()]

    def _return_strays(self, client: Redis) -> None:
        fields: list[bytes] = client.hkeys(self._keys.in_flight(self._id))  # type: ignore[assignment]
        strays = {tag for field in fields if (tag := field.decode()) not in self._held}
        old = strays & self._strays
        self._strays = strays - old
        if old:
            logger.warning("queueing.strays_put_back consumer=%s messages=%d", self._id, len(old))
            # Those of a lost acknowledgement were served.
            self._put_back(list(old), redelivered=1)

    def reap(self, client: Redis | None = None) -> int:
        """Put back messages of consumers whose lease has ended, and count the delivery; return how many there were.

        For those that a consumer was running when it died (`RunningMarker`), the crash is noted too.
        Several may reap at once; a consumer that wakes up meanwhile keeps messages not put back yet.
        """
        reaper = client or self.client
        seconds, micros = reaper.time()
        now_ms = seconds * 1000 + micros // 1000
        expired: list[bytes] = reaper.zrange(self._keys.leases, "-inf", now_ms, byscore=True)  # type: ignore[assignment]
        return sum(self._reap_one(consumer.decode(), reaper) for consumer in expired)

    def _reap_one(self, consumer: str, client: Redis) -> int:
        total = 0
        try:
            while moved := int(self._release_all(args=[consumer, 1], client=client)):
                total += moved
        except redis.exceptions.ResponseError as exc:
            # A list that is no list any more must not keep the others from being reaped.
            logger.error("queueing.reap_failed consumer=%s error=%s", consumer, exc)
        if total:
            logger.warning("queueing.reaped consumer=%s messages=%d", consumer, total)
        return total

    def close(self) -> None:
        """Put back all held messages, strays included, and end the lease.

        When the server can't be reached, they come back when the lease ends.
        """
        self._notice_fork()
        with self._lock:
            count = len(self._held)
            self._held.clear()
        try:
            self.queues.close()
            while self._release_all(args=[self._id, 0]):
                pass
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, *REFUSALS) as exc:
            if count:
                logger.warning(
                    "queueing.release_failed consumer=%s messages=%d back_within_s=%g error=%s",
                    self._id,
                    count,
                    self.lease_s + 15,
                    exc,
                )
