"""Deliveries, the outcome of a claim, with the crashes of earlier consumers that ran them."""

from __future__ import annotations

import datetime as dt

import msgspec

from headrace.queueing.lua.limits import TAIL_BYTES


class Crash(msgspec.Struct, frozen=True):
    """A consumer that died while it ran a message. at: seconds since 1970, when its lease was found to have ended."""

    at: float
    worker: str

    def __str__(self) -> str:
        """Write it as a line of a dead letter's history."""
        when = dt.datetime.fromtimestamp(self.at, dt.UTC).isoformat(timespec="milliseconds")
        return f"{when} {self.worker} died while it ran this request"


def read_crashes(lines: bytes) -> tuple[Crash, ...]:
    """Read the lines that reapers left about a message, oldest first."""
    if not lines:
        return ()
    pairs = (line.partition(" ") for line in lines.decode("utf-8", "replace").splitlines())
    return tuple(Crash(int(millis) / 1000, worker) for millis, _, worker in pairs)


class Delivery(msgspec.Struct, gc=False, weakref=False):
    """A message that this consumer holds.

    tag: identifies it when it is settled; "" when the queue is consumed without acknowledgement. raw: the message as it
    was in its list, or its last 8 KiB when it is `oversize`. deliveries: how often it came back from a consumer that
    died, lost its lease or lost track of it, so that it may have been served already. crashes: the consumers among them
    that were running it. retries: how often it was deferred. message_bytes: the length of the whole message.
    redelivered: whether it came back in any way, also unread or from a consumer that wanted to have it later.
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
        """Return the same delivery as if it were `oversize`, so that whoever opens it reads its last 8 KiB at most."""
        return msgspec.structs.replace(self, raw=self.raw[-TAIL_BYTES:], oversize=True)
