"""The poller: it waits for doorbells, broadcasts and wake-up calls of other threads at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from headrace.queueing.channel.tracking import LOOK_S, NEVER
from headrace.queueing.connection.connect import refusal_line
from headrace.queueing.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

#: How often the connections that wait are looked at, whether they are still alive. A look costs some microseconds.
WATCH_S: Final = 1.0


class Waker:
    """A pair of sockets by which any thread makes the consuming thread's poll return."""

    def __init__(self) -> None:
        """Opens the pair."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._called = False
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Make `fileno` readable until `drain`."""
        with self._lock:
            if not self._called and self._pid == os.getpid():
                self._called = True
                with suppress(OSError):  # closed meanwhile: nobody waits any more
                    self._writer.send(b"\0")

    def drain(self) -> None:
        """Make `fileno` unreadable again; what wakes from here on will be seen."""
        with self._lock:
            self._called = False
            with suppress(OSError):
                self._reader.recv(16)

    def close(self) -> None:
        """Close both sockets."""
        with self._lock:
            self._called = True
            self._reader.close()
            self._writer.close()


class Pollable(Protocol):
    """The side of a channel that the poller drives."""

    waker: Waker | None
    handlers: dict[str, Callable[[], Any]]

    @property
    def broker_time(self) -> AbstractContextManager[None]:
        """Entered around reads and writes of the broker connection."""

    @property
    def active_queues(self) -> Collection[str]:
        """The queues that are consumed."""

    @property
    def active_fanout_queues(self) -> Collection[str]:
        """The broadcasts that are listened to."""

    def flush_acks(self) -> None:
        """Send the acknowledgements that were gathered."""

    def prepare_wait(self) -> None:
        """Make sure, before the thread waits, that it will wake when it should."""

    def wake(self) -> None:
        """Make the poll return."""

    def next_look(self, now: float) -> float:
        """Return when to `look` next."""

    def look(self, now: float) -> None:
        """Look for messages that rang no doorbell."""

    def watch(self, now: float) -> None:
        """Drop connections that have been silent for too long."""

    def maybe_refresh_binding_expiry(self) -> None:
        """Let the bindings of queues that expire live on."""


class DoorbellPoller(kombu_redis.MultiChannelPoller):
    """kombu's poller, with doorbells in the place of BRPOP and a waker for each consuming channel."""

    #: The thread that polls.
    thread: int | None = None

    #: When a channel looks next for messages of senders that don't ring, by the monotonic clock. Not left to BLPOP's
    #: timeout: an idle server looks at timeouts ten times a second only.
    look_at: float = NEVER

    _loop: Any = None
    _look_timer: Any = None
    _watch_at = 0.0
    _watch_timer: Any = None
    _bindings_refused = False

    if TYPE_CHECKING:  # what kombu's stubs leave out

        def _register_BRPOP(self, channel: Pollable) -> None: ...  # noqa: N802
        def _register_LISTEN(self, channel: Pollable) -> None: ...  # noqa: N802
        def _unregister_from_poll(self, fileno: int) -> None: ...

    _channels: set[Pollable]
    _fd_to_chan: dict[int, tuple[Pollable, str]]

    def on_poll_start(self) -> None:
        """Send acknowledgements, then make sure that each channel will wake when it should."""
        self.thread = threading.get_ident()
        for channel in tuple(self._channels):
            with channel.broker_time:
                channel.flush_acks()
            if channel.active_queues:
                if channel.waker is None:
                    self._add_waker(channel)
                channel.prepare_wait()
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)
        if self._plan_look() and self._loop is not None:
            # The loop has already decided how long it waits; it must decide again.
            for channel in tuple(self._channels):
                channel.wake()

    def _add_waker(self, channel: Pollable) -> None:
        waker = channel.waker = Waker()
        self.watch_for(channel, "WAKE", waker.fileno())

    def watch_for(self, channel: Pollable, kind: str, fd: int) -> None:
        """Call a channel's handler of that kind when a descriptor is readable."""
        self._fd_to_chan[fd] = (channel, kind)
        self.poller.register(fd, self.eventflags)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor that will be closed."""
        if self._fd_to_chan.pop(fd, None) is not None:
            self._unregister_from_poll(fd)

    def look_in(self, loop: Any) -> None:
        """Make an event loop look for messages of senders that don't ring."""
        self._loop = loop
        self._cancel_look()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        self._watch_timer = loop.call_repeatedly(WATCH_S, self._watch)

    def _cancel_look(self) -> None:
        self.look_at = NEVER
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None

    def _plan_look(self) -> bool:
        """Set the timer for the next look; return whether it is earlier than before."""
        now = time.monotonic()
        at = min((channel.next_look(now) for channel in self._channels), default=NEVER)
        before = self.look_at
        if at == before:
            return False
        self._cancel_look()
        self.look_at = at
        if self._loop is not None and at != NEVER:
            self._look_timer = self._loop.call_later(max(0.0, at - now), self._look)
        return at < before

    def _watch(self) -> None:
        now = time.monotonic()
        self._watch_at = now + WATCH_S
        for channel in tuple(self._channels):
            channel.watch(now)

    def _look(self) -> None:
        self._cancel_look()
        now = time.monotonic()
        for channel in tuple(self._channels):
            if channel.next_look(now) <= now:
                channel.look(now)

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait for one event where there is no event loop; raises Empty when there was none for a while."""
        self.on_poll_start()  # kombu's does it too late to decide how long to wait
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch()
        rest = self.look_at - now
        if rest <= 0:
            self._look()
            rest = LOOK_S
        # Never below 0, which select refuses and epoll takes for "without end".
        super().get(callback, max(0.0, min(rest, WATCH_S if timeout is None else timeout)))

    def maybe_refresh_binding_expiry(self) -> None:
        """Let the bindings of queues that expire live on; a server that refuses that for now is told of once."""
        refused = None
        for channel in tuple(self._channels):
            try:
                channel.maybe_refresh_binding_expiry()
            except (RedisError, OSError) as exc:
                refused = exc
        if refused is not None and not self._bindings_refused:
            logger.warning("queueing.bindings_not_refreshed error=%s", refusal_line(refused))
        self._bindings_refused = refused is not None

    def discard(self, channel: Pollable) -> None:  # type: ignore[override]
        """Forget a channel that closes."""
        if channel.waker is not None:
            self.unwatch(channel.waker.fileno())
        super().discard(channel)  # type: ignore[arg-type]

    def on_readable(self, fileno: int) -> Any:
        """Call the handler of a readable descriptor; of a doorbell even if the window is full, for it pops nothing."""
        found = self._fd_to_chan.get(fileno)
        if found is None:
            return None
        channel, kind = found
        try:
            return channel.handlers[kind]()
        finally:
            self._plan_look()
