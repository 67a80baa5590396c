"""Celery's consumer, but reconnected within a second once the broker answers, and quiet while it is away."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from billiard.common import restart_state
from celery.utils.threads import bound_open_broker_sockets  # type: ignore[attr-defined]  # missing from the stubs
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer import Mingle
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors
from kombu.utils.url import maybe_sanitize_url
from vine import promise

from headrace.queueing import check_writes, refusal_line
from headrace.workers.intake.strategy import InferenceHandler

logger = logging.getLogger(__name__)

#: Between two attempts to connect, doubled up to the latter; each is cut by up to a half, so that workers don't come
#: in step. An attempt that is refused costs a millisecond; Celery's own pauses grow by 2 s, up to 30.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0

#: How long putting messages back may take on a connection that may have gone silent.
CLOSE_S: Final = 5.0

#: How long other workers have to say which requests were revoked.
HELLO_S: Final = 1.0

#: The event loop claims at once; a server that still refuses that has done so within this time.
SETTLED_S: Final = 0.5


class Outage:
    """The schedule of attempts to connect while the broker is away; logs the beginning and the end of the outage."""

    def __init__(self) -> None:
        """The broker is not away."""
        self._since: float | None = None
        self._pauses: Iterator[float] = iter(())
        self._pause_s = 0.0

    @property
    def lasts(self) -> bool:
        """Whether the broker is away."""
        return self._since is not None

    def failed(self, url: str, exc: Exception) -> None:
        """Count a failure, the first or a later one; a server that refuses to work is away, too."""
        if self._since is None:
            self._since = time.monotonic()
            self._pauses = pauses()
            logger.warning("broker away, trying until %s answers: %s", url, refusal_line(exc))
        self._pause_s = next(self._pauses)

    def take_pause(self) -> float:
        """Return the seconds to wait before the next attempt: once for each failure, none without one."""
        pause_s, self._pause_s = self._pause_s, 0.0
        return pause_s

    def ended(self) -> None:
        """End the outage: the broker answers and takes writes."""
        if self._since is not None:
            logger.warning("broker back after %.1f s", time.monotonic() - self._since)
            self._since = None


class Consumer(CeleryConsumer):
    """Celery's consumer that reconnects at once, then with short pauses, for as long as it takes."""

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc,valid-type]  # the stubs call it a variable
        """The steps of the consumer."""

        def info(self, parent: Any) -> dict[str, Any]:
            """Return the state of the steps for `inspect stats`, without the password in the address of a socket."""
            found: dict[str, Any] = super().info(parent)
            broker = found.get("broker")
            if isinstance(broker, dict):
                broker["hostname"] = maybe_sanitize_url(broker.get("hostname") or "")
            return found

    connection: Any
    conninfo: Any
    hub: Any
    strategies: Any
    steps: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Celery calls this."""
        self._outage = Outage()
        self._settling: Any = None
        # Gossip (Celery's leader elections) serves nothing here; each worker would read all events of all others, and
        # it fails when a connection breaks.
        super().__init__(*args, **{**kwargs, "without_gossip": True})
        # Celery gives up its loop for a second after five restarts within one; the pauses take its place.
        self._restart_state = restart_state(maxR=1000, maxT=1)

    def create_task_handler(self, promise: Any = promise) -> Callable[[Any], Any]:
        """Return the callback of messages: those of models go to the intake, all others Celery's own way.

        Celery makes two promises for each message, to acknowledge it by; the outbox acknowledges by batches instead,
        and without them a request takes a twentieth less of the worker's time.
        """
        by_celery: Callable[[Any], Any] = super().create_task_handler(promise)
        strategies = self.strategies

        def on_task_received(message: Any) -> Any:
            try:
                handler = strategies[message.headers["task"]]
            except (KeyError, TypeError):
                return by_celery(message)
            return handler.take(message) if type(handler) is InferenceHandler else by_celery(message)

        return on_task_received

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long the broker is away; return the connection."""
        while True:
            time.sleep(self._outage.take_pause())
            maybe_shutdown()
            try:
                conn.ensure_connection(max_retries=0, reraise_as_library_errors=False)
                if self._outage.lasts:
                    check_writes(conn.default_channel.client)
            except conn.connection_errors as exc:
                self._failed(conn.as_uri(), exc)
                _let_go(conn)
                conn.maybe_switch_next()
            else:
                self.first_connection_attempt = False
                return conn

    def _failed(self, url: str, exc: Exception) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._outage.failed(url, exc)

    def on_ready(self) -> None:
        """Celery calls this when it consumes; the outage has ended when the first claims are not refused either."""
        super().on_ready()
        if self._outage.lasts:
            self._settling = self.hub.call_later(SETTLED_S, self._outage.ended)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Count a failure between two connections."""
        self._failed(self.conninfo.as_uri(), exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the connection, and don't hold up the next one by asking the other workers first."""
        connection, self.connection = self.connection, None
        self._failed(connection.as_uri(), exc)
        _let_go(connection)
        ignore_errors(connection, connection.close)
        self.steps = [step for step in self.steps if not isinstance(step, Mingle)]


def is_served(strategies: Mapping[Any, Any], task: object) -> bool:
    """Return whether a task is a model of this worker."""
    return type(task) is str and type(strategies.get(task)) is InferenceHandler


def _let_go(connection: Any) -> None:
    """Drop the sockets of a broken connection, however broken it is."""
    bound_open_broker_sockets(connection, CLOSE_S)
    try:
        connection.collect(socket_timeout=CLOSE_S)
    except Exception as exc:  # noqa: BLE001 — there is nothing left to save, and the next connection is what counts
        logger.info("the broken connection did not close cleanly: %r", exc)


def pauses() -> Iterator[float]:
    """Yield the seconds before each further attempt to connect, without end; the first is made at once."""
    yield 0.0
    longest_s = FIRST_PAUSE_S
    while True:
        yield random.uniform(longest_s / 2, longest_s)  # noqa: S311 — no secret
        longest_s = min(LONGEST_PAUSE_S, longest_s * 2)


def learn_revocations(consumer: Any) -> None:
    """Exchange revoked requests with the other workers, while requests are served already.

    A client's cancellation is a row, which every worker respects. A revocation by Flower or another Celery client only
    lives in the workers, and those whose connection was broken missed it. Before its first request a worker waits for
    the answers (Celery's mingle); one that only lost its connection knows all but the latest.
    """
    known = list(consumer.controller.state.revoked)
    threading.Thread(target=_say_hello, args=(consumer, known), name="headrace-hello", daemon=True).start()


def _say_hello(consumer: Any, known: Sequence[str]) -> None:
    def on_reply(replies: dict[str, Any]) -> None:
        for node, reply in replies.items():
            if node != consumer.hostname and isinstance(reply, dict) and reply.get("revoked"):
                consumer.hub.call_soon(consumer.controller.state.merge_revoked, reply["revoked"])

    with consumer.app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            inspect = consumer.app.control.inspect(timeout=HELLO_S, connection=connection, callback=on_reply)
            inspect.hello(consumer.hostname, list(known))
        except (*connection.connection_errors, *connection.channel_errors) as exc:
            logger.info("other workers were not asked for revocations, the broker went away again: %s", exc)
