"""Messages that a consumer holds, and their settlement: acknowledged, put back, deferred or dead-lettered."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
import redis.exceptions

from headrace.queueing.connection.connect import Command, run_commands
from headrace.queueing.consumer.letter import write_letter
from headrace.queueing.consumer.serving import ConsumedQueues
from headrace.queueing.keys import keys_of
from headrace.queueing.logs import logger
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

#: Most tags in one command.
_CHUNK: Final = 500

_json_encode: Final = msgspec.json.Encoder().encode


class SettlingConsumer:
    """A consumer that settles the messages it holds. Safe to use from several threads.

    A forked child gets an empty consumer of its own.
    """

    def __init__(self, client: Redis, *, lease_s: float, max_message_bytes: int = 0) -> None:
        """client: returns bytes (`connect`). lease_s: how long it keeps its messages without `renew`.

        max_message_bytes: of longer messages only the end is read; 0 is no limit.
        """
        self.client = client
        self.lease_s = lease_s
        self.max_message_bytes = max_message_bytes
        self._lease_ms = max(1, round(lease_s * 1000))
        self._keys = keys_of(client)
        self._release = scripts.script(client, scripts.RELEASE)
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
        #: tag → SHA-1 of messages that were taken away when the lease had ended, and are not acknowledged yet.
        self._lost: dict[str, str] = {}
        self._strays: set[str] = set()
        #: When a delayed message is due, as far as this consumer knows, by the monotonic clock.
        self.next_due = math.inf
        #: The queues that it is known to consume.
        self.queues = ConsumedQueues(self.client, self._id, self._lease_ms)

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._start_anew()

    @property
    def id(self) -> str:
        """The name under which the server knows what this consumer holds."""
        self._notice_fork()
        return self._id

    @property
    def held(self) -> int:
        """The number of messages that this consumer holds."""
        self._notice_fork()
        return len(self._held)

    def holds(self, tag: str) -> bool:
        """Return whether a message is still this consumer's to acknowledge."""
        self._notice_fork()
        return tag in self._held

    def ack(self, tags: Iterable[str]) -> None:
        """Forget messages that are done; tags that are not held are passed over. One round trip.

        Messages that were taken away when the lease ended are not run again unless somebody else has finished them.
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
        """Drop finished messages from those held: return the tags of ordinary ones, and the others with their SHA-1."""
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
        tags.sort(key=sequence_of, reverse=not behind)
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

    def dead_letter_command(
        self, tag: str, reason: str, history: Iterable[str] = (), answer: tuple[str, bytes, int] | None = None
    ) -> Command:
        """Return the command of `dead_letter`, for a pipeline of the caller's, who runs it until it succeeds.

        answer: for a request that has no row, its id, the reply to it, and for how many seconds to keep that where its
        client finds it. It is written in the same step, also by a server without memory.
        """
        self._notice_fork()
        with self._lock:
            self._held.pop(tag, None)
        return "EVAL", self._dead_letter_text, 0, *self._letter_args(tag, reason, history), *(answer or ())

    def _letter_args(self, tag: str, reason: str, history: Iterable[str]) -> tuple[str | bytes, ...]:
        letter = write_letter(tag, self._keys.lists, reason, history)
        return self._id, tag, letter.id, _json_encode(letter)

    def defer_command(self, tag: str, delay_s: float) -> Command:
        """Return the command that lets a message wait in the server, for a pipeline of the caller's.

        It counts a retry. After `delay_s` whoever claims next puts the message back at the head of its queue.
        """
        return self._delay(tag, delay_s, retries=1)

    def postpone_command(self, tag: str, delay_s: float) -> Command:
        """Return the command that lets a message wait that isn't due yet; like `defer_command`, but counts nothing."""
        return self._delay(tag, delay_s, retries=0)

    def _delay(self, tag: str, delay_s: float, retries: int) -> Command:
        self._notice_fork()
        with self._lock:
            self._held.pop(tag, None)
        self.next_due = min(self.next_due, time.monotonic() + delay_s)
        # Rounded up: a message that comes back before its time would be deferred once more.
        return "EVAL", self._delay_text, 0, self._id, tag, max(0, math.ceil(delay_s * 1000)), retries

    def _notice_loss(self, client: Redis) -> None:
        """Learn which messages were taken away when the lease had ended; withdraws the crash noted of this consumer."""
        flat = [text.decode() for text in self._come_back(args=[self._id], client=client)]
        lost = dict(zip(flat[::2], flat[1::2], strict=True))
        if not lost:
            return
        logger.warning("queueing.lease_lost consumer=%s messages=%d", self._id, len(lost))
        with self._lock:
            for tag in lost:
                self._held.pop(tag, None)
            self._lost.update(lost)


def sequence_of(tag: str) -> int:
    """Return the number of a tag, by which tags sort in the order in which their messages were claimed."""
    return int(tag.partition(":")[0])
