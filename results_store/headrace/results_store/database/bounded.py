"""Connections to Postgres with a bound on every wait: a server that is silent for too long counts as lost.

Where psycopg waits in Python, the wait itself is bounded. The writer's calls wait inside libpq; a watchdog thread
shuts their socket down when they are overdue, which costs nothing as long as all is well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import pq

#: A server that is silent for so long is lost, unless settings differ: about as long as that of the broker.
ANSWER_S: Final = 8.0

#: For what may be long at work without a word: migrations, counting a whole table, dropping what is old.
LONG_WORK_S: Final = 3600.0

#: How often psycopg's wait looks up from the socket, its own default.
_INTERVAL_S: Final = 0.1

#: How often the watchdog looks, at most: once a second costs a worker less than a ten-thousandth of a core.
_LOOK_S: Final = 1.0

#: Before a peer that vanished is asked for a sign of life, between two questions, and how many go unanswered.
KEEPALIVE_IDLE_S: Final = 5
KEEPALIVE_INTERVAL_S: Final = 2
KEEPALIVE_COUNT: Final = 3

_BINARY: Final = pq.Format.BINARY

RV = TypeVar("RV")


class SilentServer(psycopg.OperationalError):
    """Postgres gave no answer in time; whether it did what it was asked is unknown."""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is given up when the server is silent for `answer_s`."""

    answer_s: float = ANSWER_S
    watchdog: Watchdog | None = None

    @classmethod
    def opened(cls, info: str, **options: Any) -> Self:
        """Connect; see `psycopg.Connection.connect`. A connection that fails is closed at once.

        The error and its traceback refer to each other, and so keep the socket open until garbage is collected.
        """
        try:
            return cls.connect(info, **options)
        except psycopg.Error as exc:
            if exc.pgconn is not None:
                exc.pgconn.finish()
            traceback.clear_frames(exc.__traceback__)
            raise

    def wait(self, gen: Generator[Any, Any, RV], interval: float = _INTERVAL_S, *rest: Any, **options: Any) -> RV:
        """Wait for the server. Raises SilentServer when nothing can be read or written for too long."""
        return super().wait(self._bounded(gen), interval, *rest, **options)

    def _bounded(self, gen: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
        since = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    since = time.monotonic()
                elif time.monotonic() - since > self.answer_s:
                    self.pgconn.finish()
                    raise SilentServer(f"no answer within {self.answer_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as stop:
            found: RV = stop.value
            return found

    def prepare_statement(self, name: bytes, statement: bytes) -> pq.abc.PGresult:
        """Prepare a statement under the watchdog."""
        return self._watched(lambda: self.pgconn.prepare(name, statement))

    def execute_prepared(self, name: bytes, parameters: Sequence[bytes], formats: Sequence[int]) -> pq.abc.PGresult:
        """Execute a prepared statement under the watchdog: libpq's one call, which gives up the GIL once."""
        return self._watched(lambda: self.pgconn.exec_prepared(name, parameters, formats, _BINARY))

    def execute_once(self, statement: bytes, parameters: Sequence[bytes], formats: Sequence[int]) -> pq.abc.PGresult:
        """Execute a statement that was not prepared, under the watchdog."""
        return self._watched(lambda: self.pgconn.exec_params(statement, parameters, None, formats, _BINARY))

    def _watched(self, call: Callable[[], pq.abc.PGresult]) -> pq.abc.PGresult:
        if self.watchdog is None:
            return call()
        self.watchdog.begin(self.pgconn.socket, self.answer_s)
        try:
            result = call()
        except psycopg.Error as exc:
            if self.watchdog.end():
                raise SilentServer(f"no answer within {self.answer_s:g} s") from exc
            raise
        if self.watchdog.end():
            # libpq tells of a lost connection in a result; it was the watchdog that cut it.
            self.pgconn.finish()
            raise SilentServer(f"no answer within {self.answer_s:g} s")
        return result


class Watchdog:
    """Cuts a connection whose call is overdue; one thread, which starts with the first call.

    A call that goes on sending is not overdue, however long it takes.
    """

    def __init__(self) -> None:
        """Create a watchdog that watches nothing yet."""
        # So that a socket is cut only while its call runs: later its number may be another socket's.
        self._lock = threading.Lock()
        self._fd = -1
        self._since = 0.0
        self._bound_s = 0.0
        self._unsent_bytes = 0
        self._fired = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, fd: int, bound_s: float) -> None:
        """Watch a call on this socket, from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="headrace-store-watchdog", daemon=True)
            self._thread.start()
        with self._lock:
            self._fd, self._since, self._bound_s, self._fired = fd, time.monotonic(), bound_s, False

    def end(self) -> bool:
        """The call has ended; return whether it was cut."""
        with self._lock:
            self._fd = -1
            return self._fired

    def cut(self) -> None:
        """Cut the connection of the call that runs, if one does. Any thread."""
        with self._lock:
            self._cut()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _loop(self) -> None:
        while not self._closed.wait(min(_LOOK_S, (self._bound_s or _LOOK_S) / 4)):
            with self._lock:
                if self._fd >= 0 and not self._fired:
                    self._look(time.monotonic())

    def _look(self, now: float) -> None:
        unsent_bytes = _unsent_bytes(self._fd)
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._since = unsent_bytes, now
        elif now - self._since > self._bound_s:
            self._cut()

    def _cut(self) -> None:
        if self._fd < 0:
            return
        self._fired = True
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as same:
            same.shutdown(socket.SHUT_RDWR)


def _unsent_bytes(fd: int) -> int:
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
    except OSError:
        return 0
