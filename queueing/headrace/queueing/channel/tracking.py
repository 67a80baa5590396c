"""Notices from the server that lists have changed, so that an idle consumer need not poll them.

The server remembers which keys a connection has read and notifies it when one of them is changed by anybody (`CLIENT
TRACKING`, from Redis 6.0 on): once for each reading. A list that was empty when it was read stays empty until then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import redis
import redis.exceptions

from headrace.queueing.connection.silence import is_readable
from headrace.queueing.logs import logger

#: How often lists are looked at where the server sends no notices of changes, and at most where it does.
LOOK_S: Final = 0.05

#: How long after a change the list is looked at. Most changes come with a doorbell, whose claim is done by then.
SETTLE_S: Final = 0.02

#: How long a consumer asks again and again before it opens a connection to be told; one that ends soon needs none.
ASKING_S: Final = 1.0

#: When it is tried again to be told, after a failure.
RETRY_S: Final = 30.0

#: A connection that has been quiet for so long is asked whether it is still there, and has as long to answer.
QUIET_S: Final = 10.0

NEVER: Final = float("inf")


class Incomplete(Exception):
    """The rest of an answer has not come yet."""


def parse(data: bytes, at: int) -> tuple[Any, int]:
    """Read one value of RESP3, of the kinds that are sent here; return it and where the next begins.

    A push is a tuple, an error a ResponseError, an array a list. Raises Incomplete, and ProtocolError for other kinds.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    kind, text, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind in b"+:":
        return (int(text) if kind == b":" else text), at
    if kind == b"-":
        return redis.exceptions.ResponseError(text.decode("utf-8", "replace")), at
    if kind == b"_" or text == b"-1":
        return None, at
    if kind == b"$":
        end = at + int(text)
        if len(data) < end + 2:
            raise Incomplete
        return data[at:end], end + 2
    if kind in b"*>":
        values = []
        for _ in range(int(text)):
            value, at = parse(data, at)
            values.append(value)
        return (tuple(values) if kind == b">" else values), at
    raise redis.exceptions.InvalidResponse(f"a value of RESP3 begins with {kind!r}")


class ListTracker:
    """A connection that knows which queues are empty: `empty` holds those in which nothing has come since it asked."""

    def __init__(self, pool: redis.ConnectionPool, lists_of: Callable[[str], list[str]]) -> None:
        """pool: for this alone. lists_of: a queue's lists, as keys. Raises the errors of `redis.exceptions`."""
        self.empty: set[str] = set()
        #: Changes whenever `empty` does.
        self.version = 0
        self._lists_of = lists_of
        self._queues: dict[bytes, str] = {}
        self._asked: deque[str | None] = deque()
        self._buffer = b""
        self._heard_at = time.monotonic()
        pool.connection_kwargs["protocol"] = 3
        self._pool = pool
        connection: Any = pool.make_connection()
        connection.replaces_itself = False  # another socket would not be told of anything
        self._connection = connection
        self._connection.connect()
        self._connection.send_command("CLIENT", "TRACKING", "ON")
        self._connection.read_response()
        self._socket: Any = self._connection._sock
        self.fd = int(self._socket.fileno())

    @property
    def is_asking(self) -> bool:
        """Whether answers are awaited."""
        return bool(self._asked)

    def ask(self, queues: Iterable[str]) -> None:
        """Ask the server whether queues are empty, and for a notice when one changes; `read` gets the answers."""
        commands: list[tuple[str, ...]] = []
        for queue in queues:
            lists = self._lists_of(queue)
            self._queues.update(dict.fromkeys(map(str.encode, lists), queue))
            commands.append(("EXISTS", *lists))
            self._asked.append(queue)
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def check(self, now: float) -> None:
        """See that the connection is alive. Raises ConnectionError when it has not answered for long."""
        if self._connection.is_suspect:
            raise redis.exceptions.ConnectionError("another connection was found silent or refused")
        quiet_s = now - self._heard_at
        if quiet_s < QUIET_S:
            return
        if self._asked:
            raise redis.exceptions.ConnectionError(f"no answer in {quiet_s:.0f} s")
        self._asked.append(None)
        self._heard_at = now
        self._connection.send_command("PING")

    def read(self) -> set[str]:
        """Read answers and notices; return the queues that are not empty. Raises the errors of `redis.exceptions`."""
        found: set[str] = set()
        self._receive()
        at = 0
        while at < len(self._buffer):
            try:
                value, at = parse(self._buffer, at)
            except Incomplete:
                break
            if isinstance(value, tuple):
                self._forget(value[1] if value[0] == b"invalidate" else ())
            elif isinstance(value, Exception):
                raise value
            elif (queue := self._asked.popleft()) is not None:
                self._note(queue, int(value), found)
        self._buffer = self._buffer[at:]
        return found

    def _receive(self) -> None:
        while is_readable(self._connection) or getattr(self._socket, "pending", int)():
            try:
                data = self._socket.recv(1 << 16)
            except (BlockingIOError, TimeoutError):
                return
            except OSError as exc:
                raise redis.exceptions.ConnectionError(str(exc)) from exc
            if not data:
                raise redis.exceptions.ConnectionError("the server has closed the connection")
            self._heard_at = time.monotonic()
            self._buffer += data

    def _note(self, queue: str, lists: int, found: set[str]) -> None:
        if lists:
            found.add(queue)
        else:
            self.empty.add(queue)
        self.version += 1

    def _forget(self, changed: Iterable[bytes] | None) -> None:
        """Note which lists have changed; None is all of them, as after FLUSHALL."""
        self.version += 1
        if changed is None:
            self.empty.clear()
        else:
            self.empty.difference_update(self._queues.get(key, "") for key in changed)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
        self._pool.disconnect()


class Lookout:
    """A schedule: when an idle consumer looks for messages of senders that don't ring."""

    def __init__(self, connect: Callable[[], ListTracker], closing: Callable[[ListTracker], None]) -> None:
        """connect: opens a connection that is told of changes. closing: called before one is closed."""
        self.tracker: ListTracker | None = None
        self._connect = connect
        self._closing = closing
        self._waits_since: float | None = None
        self._looked_at = 0.0
        self._retry_at = 0.0
        self._seen: tuple[object, int] | None = None
        self._changed_at = NEVER

    def next_look(self, awaited: Mapping[str, int], now: float) -> float:
        """Return when to look next, while the doorbells of queues are awaited."""
        if self._waits_since is None:
            self._waits_since = now
        tracker = self.tracker
        if tracker is None:
            return self._looked_at + LOOK_S
        if self._seen != (id(awaited), tracker.version):
            self._seen = (id(awaited), tracker.version)
            unknown = not awaited.keys() <= tracker.empty
            self._changed_at = min(now, self._changed_at) if unknown else NEVER
        if tracker.is_asking or self._changed_at == NEVER:
            return NEVER
        return max(self._looked_at + LOOK_S, self._changed_at + SETTLE_S)

    def look(self, awaited: Mapping[str, int], now: float) -> bool:
        """Ask about lists that may have changed; return whether to claim instead, because nobody can be asked."""
        self._looked_at = now
        if self.tracker is None and self._waits_since is not None:
            if now < max(self._waits_since + ASKING_S, self._retry_at):
                return True
            try:
                self.tracker = self._connect()
            except redis.exceptions.RedisError as exc:
                self._disconnect(exc)
        if self.tracker is None:
            return True
        try:
            self.tracker.ask(awaited.keys() - self.tracker.empty)
        except (redis.exceptions.RedisError, OSError) as exc:
            self._disconnect(exc)
            return True
        return False

    def read(self) -> set[str]:
        """Read the server's notices; return the queues in which something waits."""
        if self.tracker is None:
            return set()
        try:
            return self.tracker.read()
        except redis.exceptions.RedisError as exc:
            self._disconnect(exc)
            return set()

    def check(self, now: float) -> None:
        """See that the connection is alive."""
        try:
            if self.tracker is not None:
                self.tracker.check(now)
        except (redis.exceptions.RedisError, OSError) as exc:
            self._disconnect(exc)

    def _disconnect(self, exc: Exception) -> None:
        """Go on without being told, for a while."""
        logger.info("queueing.no_tracking retry_s=%.0f error=%s", RETRY_S, exc)
        self._retry_at = time.monotonic() + RETRY_S
        self.close()

    def close(self) -> None:
        """Close the connection."""
        tracker, self.tracker = self.tracker, None
        self._seen, self._changed_at = None, NEVER
        if tracker is not None:
            self._closing(tracker)
            tracker.close()
