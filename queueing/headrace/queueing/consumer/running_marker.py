"""The running marker: records what a consumer is executing, so that a crash counts against those messages only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from headrace.queueing.connection.gil_holding_socket import MAY_WAIT, send_all
from headrace.queueing.connection.patience import SILENCE_S
from headrace.queueing.connection.silence import ASK_AFTER, is_readable
from headrace.queueing.keys import RUNNING_TTL_S, keys_of
from headrace.queueing.logs import logger

if TYPE_CHECKING:
    from redis import Redis
    from redis.connection import AbstractConnection

#: After a failure nothing is sent for this time, so that a server that is away holds up no batch.
PAUSE_S: Final = 1.0

#: Longest time that one connection attempt or one send may hold up a batch.
TIMEOUT_S: Final = 0.5


class RunningMarker:
    """A record in the server of the messages that run, written without waiting for answers; for one thread.

    Costs one small write to a socket per batch: the connection gets no answers (CLIENT REPLY OFF), and bytes handed to
    the kernel arrive even if the process is killed right after. So a marker may wait for others to join it. One that
    gets lost (the server is away, or its memory full, or the machine lost power) only means that a crash goes
    uncounted.
    """

    def __init__(self, client: Redis, worker: str) -> None:
        """client: has the address; connects when first needed. worker: its name, for the history of a crash."""
        self._pool = client.connection_pool
        self._keys = keys_of(client)
        self._worker = " ".join(worker.split())
        self._connection: AbstractConnection | None = None
        self._marked: tuple[str, ...] = ()
        self._silent_until = 0.0
        self._away = False
        self._silence_s = float(self._pool.connection_kwargs.get("socket_timeout") or SILENCE_S)
        self._asked = False
        self._asked_at = 0.0

    @property
    def stands(self) -> bool:
        """Whether anything is recorded as running."""
        return bool(self._marked)

    def set(self, running: Mapping[str, Sequence[str]]) -> None:
        """Record what runs from now on, the tags of each consumer, in place of what was recorded before."""
        for consumer in self._marked:
            if consumer not in running:
                self._send_command(("DEL", self._keys.running(consumer)), MAY_WAIT)
        self._marked = tuple(running)
        for consumer, tags in running.items():
            mark = "\n".join((self._worker, *tags))
            self._send_command(("SET", self._keys.running(consumer), mark, "EX", RUNNING_TTL_S), MAY_WAIT)

    def clear(self) -> None:
        """Record that nothing runs."""
        if self._marked:
            self.set({})

    def send(self, *command: str | int) -> None:
        """Send any command whose answer does not matter, now and after those sent before; may get lost."""
        self._send_command(command, 0)

    def _send_command(self, command: tuple[str | int, ...], flags: int) -> None:
        if self._silent_until and time.monotonic() < self._silent_until:
            return
        try:
            connection: Any = self._connection
            if connection is None or not self._lives(connection):
                connection = self._connect()
            send_all(connection._sock, b"".join(connection.pack_command(*command)), flags)
        except (redis.exceptions.RedisError, OSError) as exc:
            self._disconnect(exc)
        else:
            self._silent_until = 0.0
            if self._away:
                self._away = False
                logger.warning("queueing.marks_kept_again worker=%s", self._worker)

    def _lives(self, connection: Any) -> bool:
        """Return whether the connection may still be used; asks the server for an answer now and then, without waiting.

        The kernel accepts writes to a connection that has gone silent until its buffers are full.
        """
        if getattr(connection, "is_suspect", False):
            return False
        now = time.monotonic()
        if self._asked:
            if is_readable(connection):
                connection.read_response()
                self._asked = False
            elif now - self._asked_at >= self._silence_s * (1 - ASK_AFTER):
                raise redis.exceptions.TimeoutError(f"no answer in {now - self._asked_at:.0f} s")
        elif now - self._asked_at >= self._silence_s * ASK_AFTER:
            # The first one is answered, the second is not.
            asking = connection.pack_commands([("CLIENT", "REPLY", "ON"), ("CLIENT", "REPLY", "OFF")])
            send_all(connection._sock, b"".join(asking), MAY_WAIT)
            self._asked, self._asked_at = True, now
        return True

    def close(self) -> None:
        """Close the connection; markers stay as they are."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(redis.exceptions.RedisError, OSError):
                connection.disconnect()  # type: ignore[no-untyped-call]

    def _connect(self) -> AbstractConnection:
        # Not from the pool, which has no use for a connection that gives no answers.
        options = {
            **self._pool.connection_kwargs,
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }
        if "path" in options:
            del options["socket_connect_timeout"]  # a Unix socket knows no such thing
        connection: AbstractConnection = self._pool.connection_class(**options)
        connection.connect()  # type: ignore[no-untyped-call]
        connection.send_command("CLIENT", "REPLY", "OFF", check_health=False)  # type: ignore[no-untyped-call]
        self._connection = connection
        self._asked, self._asked_at = False, time.monotonic()
        return connection

    def _disconnect(self, exc: Exception) -> None:
        self.close()
        self._silent_until = time.monotonic() + PAUSE_S
        if not self._away:
            self._away = True
            logger.warning("queueing.marks_lost worker=%s error=%s", self._worker, exc)
