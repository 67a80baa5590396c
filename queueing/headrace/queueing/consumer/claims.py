"""Claiming messages in batches, and giving them back, acknowledging or burying them: one round trip each."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import redis.exceptions

from headrace.contracts.ids import new_id
from headrace.queueing.admin.dead_letters import Crash, DeadLetter, read_crashes
from headrace.queueing.connection.connect import Command, run_commands
from headrace.queueing.connection.refusals import REFUSALS
from headrace.queueing.consumer.serving import ConsumedQueues
from headrace.queueing.keys import keys_of
from headrace.queueing.lists import queue_list
from headrace.queueing.logs import logger
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

#: Most messages one claim takes, however many are wanted: bounds how long the server is busy with one call.
MAX_CLAIM: Final = 1024

#: Most tags in one command.
_CHUNK: Final = 500

#: What a claim says of a message that is not ordinary: so many values.
_NOTE: Final = 7

_json_encode: Final = msgspec.json.Encoder().encode


class Delivery(msgspec.Struct, gc=False, weakref=False):
    """A message that this consumer holds.

    tag: what to acknowledge it by; "" when the queue is consumed without acknowledgement. raw: the message as it was
    in its list, or its last 8 KiB when it is `oversize`. deliveries: how often it came back from a consumer that died,
    lost its lease or lost track of it, so that it may have been served already. crashes: the consumers among them that
    were running it. retries: how often it was deferred. message_bytes: the length of the whole message. redelivered:
    whether it came back in any way, also unread or from a consumer that wanted to have it later.
    """

    tag: str
    queue: str
    priority_step: int
    raw: bytes
    deliveries: int
    oversize: bool
    message_bytes: int
    crashes: tuple[Crash, ...] = ()
    retries: int = 0
    redelivered: bool = False

    def end_only(self) -> Delivery:
        """Give the same delivery as if it were `oversize`, so that who opens it reads no more than its last 8 KiB."""
        return msgspec.structs.replace(self, raw=self.raw[-scripts.TAIL_BYTES :], oversize=True)


class Ticket(msgspec.Struct, kw_only=True):
    """A claim that was prepared. wish: how many messages it asks for."""

    names: list[str]
    no_ack: frozenset[str]
    wish: int
    args: list[Any]


class ClaimingConsumer:
    """Takes messages out of queues and holds them under a lease until they are acknowledged, put back or buried.

    Safe to use from several threads; a forked child gets an empty consumer of its own. Methods raise the errors of
    `redis.exceptions`; `translate_errors()` makes them ours. Somebody must call `renew` in time: a LeaseKeeper.
    """

    def __init__(self, client: Redis, *, lease_s: float, max_message_bytes: int = 0) -> None:
        """client: returns bytes (`connect`). lease_s: how long what it holds stays its own without `renew`.

        max_message_bytes: of longer messages only the end is read; 0 is no limit.
        """
        self.client = client
        self.lease_s = lease_s
        self.max_message_bytes = max_message_bytes
        #: Whether another queue comes first in each claim; otherwise their order is the caller's.
        self.takes_turns = True
        self._lease_ms = max(1, round(lease_s * 1000))
        self._keys = keys_of(client)
        self._claim = scripts.script(client, scripts.CLAIM)
        self._release = scripts.script(client, scripts.RELEASE)
        self._release_all = scripts.script(client, scripts.RELEASE_ALL)
        self._renew = scripts.script(client, scripts.RENEW)
        self._renewal_text = scripts.rendered(scripts.RENEW, self._keys)
        self._come_back = scripts.script(client, scripts.COME_BACK)
        self._ack_text = scripts.rendered(scripts.ACK_REMEMBERED, self._keys)
        self._dead_letter = scripts.script(client, scripts.DEAD_LETTER)
        self._dead_letter_text = scripts.rendered(scripts.DEAD_LETTER, self._keys)
        self._delay_text = scripts.rendered(scripts.DEFER, self._keys)
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._id = uuid.uuid4().hex
        self._sequence = 1
        self._turn = 0
        #: tag → SHA-1 of the message if its deliveries are being counted, else "".
        self._held: dict[str, str] = {}
        #: tag → SHA-1 of what was taken away when the lease had ended, and is not acknowledged yet.
        self._lost: dict[str, str] = {}
        self._strays: set[str] = set()
        #: When a delayed message is due, as far as this consumer knows, by the monotonic clock.
        self.next_due = math.inf
        #: The queues that it is known to consume.
        self.queues = ConsumedQueues(self.client, self._id, self._lease_ms)

    @property
    def id(self) -> str:
        """The name under which the server knows what this consumer holds."""
        self._notice_fork()
        return self._id

    @property
    def held(self) -> int:
        """How many messages this consumer holds."""
        self._notice_fork()
        return len(self._held)

    def holds(self, tag: str) -> bool:
        """Say whether a message is still this consumer's to acknowledge."""
        self._notice_fork()
        return tag in self._held

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
        most_bytes: int = scripts.CLAIM_BYTES,
    ) -> Ticket | None:
        """Prepare a claim that the caller runs: `command` gives what to send, `take` reads the answer.

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
        most_bytes = min(most_bytes, scripts.CLAIM_BYTES)
        args[:0] = (self._id, self._lease_ms, self.max_message_bytes, first, limit, most_bytes)
        return Ticket(names=names, no_ack=frozenset(no_ack), wish=min(limit, total), args=args)

    def command(self, ticket: Ticket) -> Command:
        """Give the Redis command of a prepared claim. The server knows the script once `claim` was called."""
        return ("EVALSHA", self._claim.sha, 0, *ticket.args)

    def give_back(self, ticket: Ticket) -> None:
        """Put back what a prepared claim has taken whose answer was lost; nothing if it has not run."""
        self._notice_fork()
        first, limit = ticket.args[3:5]
        taken = [field.decode() for field in self.client.hkeys(self._keys.in_flight(self._id))]  # type: ignore[union-attr]
        lost = [tag for tag in taken if first <= _sequence_of(tag) < first + limit and tag not in self._held]
        if lost:
            logger.warning("queueing.lost_claim_put_back consumer=%s messages=%d", self._id, len(lost))
            self._put_back(lost)

    def take(self, ticket: Ticket, groups: list[Any] | None) -> list[Delivery]:
        """Read the answer to the command of a prepared claim: what was claimed is held from now on."""
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

    def ack(self, tags: Iterable[str]) -> None:
        """Forget messages that are done; tags that are not held are passed over. One round trip.

        What was taken away meanwhile, the lease having ended, is not run again unless somebody else has finished it.
        """
        self._notice_fork()
        done, remembered = self._settle(tags)
        if not done and not remembered:
            return
        commands = list(self._acks(done, remembered))
        try:
            answers = run_commands(self.client, commands)
            for answer in answers:
                if isinstance(answer, redis.exceptions.ResponseError):
                    raise answer
            forgotten = sum(answer for command, answer in zip(commands, answers, strict=True) if command[0] == "HDEL")
            if forgotten < len(done):
                self._ack_lost(done)
        except redis.exceptions.RedisError:
            with self._lock:
                # Still ours, so that the caller may try again.
                self._held.update(dict.fromkeys(done, "") | remembered)
            raise

    def _ack_lost(self, done: list[str]) -> None:
        """Acknowledge those of messages that were taken away before anybody noticed."""
        self._notice_loss(self.client)
        with self._lock:
            late = {tag: self._lost.pop(tag) for tag in done if tag in self._lost}
        for command in self._acks([], late):
            self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def ack_commands(self, tags: Iterable[str]) -> list[Command]:
        """Return the commands that forget messages, for a pipeline of the caller's, who runs it until it succeeds."""
        self._notice_fork()
        return list(self._acks(*self._settle(tags)))

    def _settle(self, tags: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Let go of what is done: return the tags of ordinary messages, and the others with their SHA-1."""
        done, remembered = [], {}
        with self._lock:
            for tag in tags:
                sha = self._held.pop(tag, None)
                if sha is None:
                    sha = self._lost.pop(tag, None) if self._lost else None
                if sha:
                    remembered[tag] = sha
                elif sha is not None:
                    done.append(tag)
        return done, remembered

    def _acks(self, done: list[str], remembered: dict[str, str]) -> Iterator[Command]:
        for at in range(0, len(done), _CHUNK):
            yield "HDEL", self._keys.in_flight(self._id), *done[at : at + _CHUNK]
        pairs = [value for pair in remembered.items() for value in pair]
        for at in range(0, len(pairs), 2 * _CHUNK):
            yield "EVAL", self._ack_text, 0, self._id, *pairs[at : at + 2 * _CHUNK]

    def release(self, tags: Iterable[str] | None = None) -> None:
        """Put messages back at the head of their queues, in the order in which they came, and ring.

        tags: those that are not held are passed over; None puts back all that is held.
        """
        self._put_back(self._let_go(tags))

    def requeue(self, tags: Iterable[str]) -> None:
        """Put messages back behind all that wait at their priority, and ring: their taker wants to have them later."""
        self._put_back(self._let_go(tags), behind=1)

    def _let_go(self, tags: Iterable[str] | None) -> list[str]:
        self._notice_fork()
        with self._lock:
            chosen = list(self._held) if tags is None else [tag for tag in tags if tag in self._held]
            for tag in chosen:
                del self._held[tag]
        return chosen

    def _put_back(self, tags: list[str], *, redelivered: int = 0, behind: int = 0) -> None:
        tags.sort(key=_sequence_of, reverse=not behind)
        while tags:
            settled = int(self._release(args=[self._id, redelivered, behind, *tags[:_CHUNK]]))
            del tags[: max(settled, 1)]

    def dead_letter(self, tag: str, reason: str, history: Iterable[str] = ()) -> None:
        """Move a message to the dead letters, where a person can look at it and send it again.

        reason: one line. history: what happened before, oldest first.
        """
        self._notice_fork()
        self._dead_letter(args=self._letter_args(tag, reason, history))
        with self._lock:
            self._held.pop(tag, None)

    def dead_letter_command(self, tag: str, reason: str, history: Iterable[str] = ()) -> Command:
        """Give the command of `dead_letter`, for a pipeline of the caller's, who runs it until it succeeds."""
        self._notice_fork()
        with self._lock:
            self._held.pop(tag, None)
        return "EVAL", self._dead_letter_text, 0, *self._letter_args(tag, reason, history)

    def _letter_args(self, tag: str, reason: str, history: Iterable[str]) -> tuple[str | bytes, ...]:
        came_from = tag.partition(":")[2]
        queue, step = self._keys.lists.split(came_from)
        letter = DeadLetter(
            id=new_id(),
            queue=queue,
            step=step,
            list_key="" if came_from == queue_list(queue, step) else came_from,
            reason=reason,
            history=list(history),
            buried_at=time.time(),
        )
        return self._id, tag, letter.id, _json_encode(letter)

    def defer_command(self, tag: str, delay_s: float) -> Command:
        """Give the command that lets a message wait in the server, for a pipeline of the caller's.

        It counts a retry. After `delay_s` whoever claims next puts the message back at the head of its queue.
        """
        return self._delay(tag, delay_s, retries=1)

    def postpone_command(self, tag: str, delay_s: float) -> Command:
        """Give the command that lets a message wait that isn't due yet; like `defer_command`, but counts nothing."""
        return self._delay(tag, delay_s, retries=0)

    def _delay(self, tag: str, delay_s: float, retries: int) -> Command:
        self._notice_fork()
        with self._lock:
            self._held.pop(tag, None)
        self.next_due = min(self.next_due, time.monotonic() + delay_s)
        # Rounded up: what comes back before its time would be sent away once more.
        return "EVAL", self._delay_text, 0, self._id, tag, max(0, math.ceil(delay_s * 1000)), retries

    def renew(self, client: Redis | None = None) -> None:
        """Extend the lease on all that is held, by one command, and by another the place among its queues' consumers.

        Also finds strays: messages that the server holds for us and we don't know of, because the answer to a claim
        or the pipeline of an acknowledgement was lost with its connection. Those seen twice in a row go back. And
        notices that the lease had ended: a death that was noted of it is taken back.
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
        """Say how many messages the server has lost: those that were held before it counted, and still are."""
        still = [tag for tag in held if tag in self._held]
        if in_flight >= len(still):
            return
        known = {field.decode() for field in client.hkeys(self._keys.in_flight(self._id))}  # type: ignore[union-attr]
        with self._lock:
            gone = [tag for tag in still if tag not in known and self._held.pop(tag, None) is not None]
        if gone:
            logger.error("queueing.in_flight_gone consumer=%s messages=%d", self._id, len(gone))

    def renewal_commands(self) -> list[Command]:
        """Return the commands by which somebody else may renew, who needn't know what they mean."""
        self._notice_fork()
        renewal: Command = ("EVAL", self._renewal_text, 0, self._id, self._lease_ms)
        return [renewal, *self.queues.renewal_commands()]

    def _notice_loss(self, client: Redis) -> None:
        """Learn what was taken away because the lease had ended; this consumer is alive, whatever was noted."""
        flat = [text.decode() for text in self._come_back(args=[self._id], client=client)]
        lost = dict(zip(flat[::2], flat[1::2], strict=True))
        if not lost:
            return
        logger.warning("queueing.lease_lost consumer=%s messages=%d", self._id, len(lost))
        with self._lock:
            for tag in lost:
                self._held.pop(tag, None)
            self._lost.update(lost)

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
        """Put back what consumers hold whose lease has ended, and count the delivery; give how many messages that were.

        Of those that a consumer was running when it died (`RunningMarker`), the death is noted too.
        Several may reap at once; a consumer that wakes up meanwhile keeps what was not put back yet.
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
        """Put back all that is held, strays included, and give up the lease.

        When the server can't be reached, what is held comes back when the lease ends.
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

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._start_anew()


def _sequence_of(tag: str) -> int:
    return int(tag.partition(":")[0])
