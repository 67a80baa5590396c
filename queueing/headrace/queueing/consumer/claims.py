"""Claims: one Lua call takes a batch of messages and registers them under the consumer's lease, atomically."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.queueing.connection.connect import Command
from headrace.queueing.consumer.delivery import Delivery, read_crashes
from headrace.queueing.consumer.renewal import RenewingConsumer
from headrace.queueing.consumer.settling import sequence_of
from headrace.queueing.logs import logger
from headrace.queueing.lua import scripts
from headrace.queueing.lua.limits import CLAIM_BYTES

if TYPE_CHECKING:
    from redis import Redis

#: Most messages one claim takes, however many are wanted: bounds how long the server is busy with one call.
MAX_CLAIM: Final = 1024

#: Number of fields in each note of a claim's answer; a message that is not ordinary has one.
_NOTE: Final = 7


class Ticket(msgspec.Struct, kw_only=True):
    """A claim that was prepared. wish: how many messages it asks for."""

    names: list[str]
    no_ack: frozenset[str]
    wish: int
    args: list[Any]


class ClaimingConsumer(RenewingConsumer):
    """Takes messages out of queues and holds them under a lease until they are acknowledged, put back or dead-lettered.

    Safe to use from several threads; a forked child gets an empty consumer of its own. Methods raise the errors of
    `redis.exceptions`; `translate_errors()` makes them ours. Somebody must call `renew` in time: a LeaseKeeper.
    """

    def __init__(self, client: Redis, *, lease_s: float, max_message_bytes: int = 0) -> None:
        """client: returns bytes (`connect`). lease_s: how long it keeps its messages without `renew`.

        max_message_bytes: of longer messages only the end is read; 0 is no limit.
        """
        super().__init__(client, lease_s=lease_s, max_message_bytes=max_message_bytes)
        #: Whether another queue comes first in each claim; otherwise their order is the caller's.
        self.takes_turns = True
        self._claim = scripts.script(client, scripts.CLAIM)

    def claim(
        self, wants: Mapping[str, int], *, limit: int = MAX_CLAIM, no_ack: Collection[str] = ()
    ) -> list[Delivery]:
        """Take up to `wants[queue]` messages of each queue, the most urgent first, and hold them; one round trip.

        limit: most messages in all; the queue that is served first changes from call to call. no_ack: queues whose
        messages are not held: of these at most one a call, because nothing brings it back when this process dies.
        """
        ticket = self.prepare(wants, limit=limit, no_ack=no_ack)
        return [] if ticket is None else self.run(ticket)

    def run(self, ticket: Ticket) -> list[Delivery]:
        """Run a prepared claim; one round trip."""
        return self.take(ticket, self._claim(args=ticket.args))

    def prepare(
        self,
        wants: Mapping[str, int],
        *,
        limit: int = MAX_CLAIM,
        no_ack: Collection[str] = (),
        most_bytes: int = CLAIM_BYTES,
    ) -> Ticket | None:
        """Prepare a claim that the caller runs: `command` is what to send, `take` reads the answer.

        None when nothing is wanted. most_bytes: of all messages, if they are more than one; no more than CLAIM_BYTES.
        Other parameters as of `claim`.
        """
        self._notice_fork()
        names = [name for name, wanted in wants.items() if wanted > 0]
        if not names or limit <= 0:
            return None
        limit = min(limit, MAX_CLAIM)
        names = self._rotated(names)
        args: list[Any] = []
        total = 0
        for name in names:
            plain = name in no_ack
            wanted = 1 if plain else wants[name]
            total += wanted
            args += (name, wanted, int(plain))
        with self._lock:
            first = self._sequence
            self._sequence += limit
        most_bytes = min(most_bytes, CLAIM_BYTES)
        args[:0] = (self._id, self._lease_ms, self.max_message_bytes, first, limit, most_bytes)
        return Ticket(names=names, no_ack=frozenset(no_ack), wish=min(limit, total), args=args)

    def command(self, ticket: Ticket) -> Command:
        """Return the Redis command of a prepared claim. The server knows the script once `claim` was called."""
        return ("EVALSHA", self._claim.sha, 0, *ticket.args)

    def give_back(self, ticket: Ticket) -> None:
        """Put back the messages of a prepared claim whose answer was lost; none if it has not run."""
        self._notice_fork()
        first, limit = ticket.args[3:5]
        taken = [field.decode() for field in self.client.hkeys(self._keys.in_flight(self._id))]  # type: ignore[union-attr]
        lost = [tag for tag in taken if first <= sequence_of(tag) < first + limit and tag not in self._held]
        if lost:
            logger.warning("queueing.lost_claim_put_back consumer=%s messages=%d", self._id, len(lost))
            self._put_back(lost)

    def take(self, ticket: Ticket, groups: list[Any] | None) -> list[Delivery]:
        """Read the answer to the command of a prepared claim: its messages are held from now on."""
        if not groups:
            return []
        due_ms = groups[0]
        self.next_due = math.inf if due_ms < 0 else time.monotonic() + due_ms / 1000
        return self._deliveries(groups[1:], ticket.names, ticket.no_ack)

    def _rotated(self, names: list[str]) -> list[str]:
        if len(names) == 1 or not self.takes_turns:
            return names
        self._turn += 1
        at = self._turn % len(names)
        return names[at:] + names[:at]

    def _deliveries(self, groups: list[Any], names: list[str], no_ack: Collection[str]) -> list[Delivery]:
        lists = self._keys.lists
        found: list[Delivery] = []
        held: dict[str, str] = {}
        for index, step, sequence, messages, notes in groups:
            queue = names[index]
            plain = queue in no_ack
            suffix = ":" + lists.list_of(queue, step)
            start = len(found)
            found += [
                Delivery("" if plain else f"{number}{suffix}", queue, step, raw, 0, False, len(raw))
                for number, raw in enumerate(messages, sequence)
            ]
            if not plain:
                held.update(dict.fromkeys([delivery.tag for delivery in found[start:]], ""))
            for at in range(0, len(notes), _NOTE):
                delivery = found[start + notes[at]]
                _, delivery.deliveries, sha, length, crashes, delivery.retries, back = notes[at : at + _NOTE]
                delivery.message_bytes, delivery.redelivered = length, bool(back)
                delivery.crashes = read_crashes(crashes)
                delivery.oversize = delivery.message_bytes > len(delivery.raw)
                if sha and not plain:
                    held[delivery.tag] = sha.decode()
        with self._lock:
            self._held.update(held)
        return found
