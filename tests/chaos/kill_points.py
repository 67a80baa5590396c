"""The places between two steps of a request's way where a worker can be made to die: claim, run, commit, reply, ack.

And beside that way: the look-up of what was delivered before, and the mark of what runs.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import redis.exceptions

from headrace.queueing import Command, CommandLine

#: How often a server that is away is asked again.
AGAIN_S: Final = 0.1

#: In the order in which a request passes them. Claiming and registering are one step of the server, so what can lie
#: between them for a worker is only an answer that it never read.
POINTS: Final = (
    "answer of Valkey unread",
    "claimed",
    "before look-up",
    "after look-up",
    "look-up acted on",
    "before admit",
    "after admit",
    "before mark",
    "after mark",
    "before run",
    "after run",
    "before commit",
    "commit sent, answer unread",
    "after commit",
    "before reply",
    "between reply and ack",
    "in the middle of acks",
    "after ack",
    "before unmark",
    "after unmark",
)

#: These are passed only by requests that were delivered before, so another worker must die first.
OF_REDELIVERED: Final = ("before look-up", "after look-up", "look-up acted on")

#: Where a worker surely holds messages, so that its death makes them be delivered again.
HOLDING: Final = "claimed"


class Trigger:
    """Dies at the n-th passage of a point, once armed. tell: takes a line for the harness."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._point = ""
        self._left = 0

    def arm(self, point: str, nth: int) -> None:
        """Die at the n-th passage of a point from now on."""
        with self._lock:
            self._point, self._left = point, nth

    def is_due(self, point: str) -> bool:
        """Count a passage; say whether it is the one."""
        if point != self._point:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def die(self, point: str) -> None:
        """End as `kill -9` ends a process: no handler, no `finally`, no flush."""
        self._tell(f"died {point}")
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # the signal may be delivered a moment later; nothing may happen in between

    def passed(self, point: str) -> None:
        """Die if this passage is the one."""
        if self.is_due(point):
            self.die(point)


def install(trigger: Trigger, tell: Callable[[str], None]) -> None:
    """Wrap the product's functions at the seams."""
    _wrap_claim(trigger, tell)
    _wrap_look_up(trigger)
    _wrap_engine(trigger)
    _wrap_mark(trigger)
    _wrap_store(trigger)
    _wrap_replies(trigger)
    _wrap_reading(trigger)


def _around(owner: type, name: str, before: Callable[[], None] | None, after: Callable[[], None] | None) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        result = inner(*args, **kwargs)
        if after is not None:
            after()
        return result

    setattr(owner, name, outer)


def _wrap_claim(trigger: Trigger, tell: Callable[[str], None]) -> None:
    from headrace.queueing import ClaimingConsumer

    inner = ClaimingConsumer.take
    known: set[str] = set()

    @functools.wraps(inner)
    def take(self: ClaimingConsumer, *args: Any, **kwargs: Any) -> Any:
        if self.id not in known:
            known.add(self.id)
            tell(f"consumer {self.id}")
        found = inner(self, *args, **kwargs)
        if any(delivery.tag for delivery in found):
            trigger.passed("claimed")
        return found

    ClaimingConsumer.take = take  # type: ignore[method-assign]


def _wrap_look_up(trigger: Trigger) -> None:
    from headrace.results_store import StoreReader
    from headrace.workers.redelivery.redeliveries import Redeliveries

    passed = trigger.passed
    _around(StoreReader, "get_many", lambda: passed("before look-up"), lambda: passed("after look-up"))
    _around(Redeliveries, "resume", None, lambda: passed("look-up acted on"))


def _wrap_mark(trigger: Trigger) -> None:
    from headrace.queueing import RunningMarker

    inner = RunningMarker.set

    @functools.wraps(inner)
    def set_(self: RunningMarker, running: Any) -> None:
        # A mark is taken away by setting one of nothing.
        name = "mark" if running else "unmark"
        trigger.passed(f"before {name}")
        inner(self, running)
        trigger.passed(f"after {name}")

    RunningMarker.set = set_  # type: ignore[method-assign]


def _wrap_engine(trigger: Trigger) -> None:
    from headrace.workers.execution import pipeline
    from headrace.workers.execution.layers.base import BatchContext, Layer, Next, Services
    from headrace.workers.execution.verdict import Verdict
    from headrace.workers.intake.arrivals import Arrivals

    passed = trigger.passed
    _around(Arrivals, "admit", lambda: passed("before admit"), lambda: passed("after admit"))

    def kill_points(_: Services) -> Layer:
        def layer(batch: BatchContext, following: Next, /) -> Verdict:
            passed("before run")
            verdict = following(batch)
            passed("after run")
            return verdict

        return layer

    pipeline.LAYERS += (kill_points,)


def _wrap_store(trigger: Trigger) -> None:
    from headrace.results_store import StoreWriter

    _around(StoreWriter, "write", lambda: trigger.passed("before commit"), lambda: trigger.passed("after commit"))
    inner = StoreWriter._connected

    @functools.wraps(inner)
    def connected(self: StoreWriter) -> Any:
        connection = inner(self)
        return _Unread(connection, trigger) if trigger.is_due("commit sent, answer unread") else connection

    StoreWriter._connected = connected  # type: ignore[method-assign]


class _Unread:
    """A connection whose next statement is sent; then the worker dies before it reads the answer."""

    def __init__(self, connection: Any, trigger: Trigger) -> None:
        self._connection = connection
        self._trigger = trigger
        self.pgconn = self

    def exec_prepared(self, *args: Any) -> None:
        pgconn = self._connection.pgconn
        pgconn.send_query_prepared(*args)
        pgconn.flush()
        self._trigger.die("commit sent, answer unread")

    def __getattr__(self, name: str) -> Any:
        self._trigger.die("commit sent, answer unread")


def _wrap_replies(trigger: Trigger) -> None:
    from headrace.workers.outbox.replies import OutgoingReplies
    from headrace.workers.outbox.reply_sender import ReplySender

    inner = ReplySender.send

    @functools.wraps(inner)
    def send(self: ReplySender, replies: OutgoingReplies, settling: Sequence[Command]) -> None:
        trigger.passed("before reply")
        for point in ("between reply and ack", "in the middle of acks"):
            if trigger.is_due(point):
                _send(self.line, self.commands(replies) + (_half_of(list(settling)) if "acks" in point else []))
                trigger.die(point)
        inner(self, replies, settling)
        trigger.passed("after ack")

    ReplySender.send = send  # type: ignore[method-assign]


def _half_of(commands: list[Any]) -> list[Any]:
    """Acknowledge the first half of one consumer's messages: `HDEL key tag…`."""
    for name, *arguments in commands:
        if name == "HDEL":
            key, *tags = arguments
            return [(name, key, *tags[: max(1, len(tags) // 2)])]
    return []


def _send(line: CommandLine, commands: list[Any]) -> None:
    """Send them, once the server takes them: another fault may have it away just now, which the outbox itself bears."""
    while True:
        with suppress(redis.exceptions.RedisError):
            if not any(isinstance(answer, redis.exceptions.ResponseError) for answer in line.run(commands)):
                return
        time.sleep(AGAIN_S)


def _wrap_reading(trigger: Trigger) -> None:
    from redis.connection import Connection

    _around(Connection, "read_response", lambda: trigger.passed("answer of Valkey unread"), None)
