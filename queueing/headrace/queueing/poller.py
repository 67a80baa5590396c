"""Waiting for doorbells, broadcasts and wake-up calls of other threads at once."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from kombu.transport import redis as kombu_redis

if TYPE_CHECKING:
    from headrace.queueing.channel import Channel


#: How often an idle channel looks for messages of senders that don't ring; they are answered after 25 ms on average.
#: Not left to the timeout of BLPOP: an idle server looks at timeouts ten times a second only.
LOOK_S: Final = 0.05


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
        """Give the descriptor that becomes readable."""
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


class DoorbellPoller(kombu_redis.MultiChannelPoller):
    """kombu's poller, with doorbells in the place of BRPOP and a waker for each consuming channel."""

    #: The thread that polls.
    thread: int | None = None

    _look_at = 0.0
    _look_timer: Any = None

    if TYPE_CHECKING:  # what kombu's stubs leave out

        def _register_BRPOP(self, channel: Channel) -> None: ...  # noqa: N802
        def _register_LISTEN(self, channel: Channel) -> None: ...  # noqa: N802
        def _unregister_from_poll(self, fileno: int) -> None: ...

    _channels: set[Channel]
    _fd_to_chan: dict[int, tuple[Channel, str]]

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

    def _add_waker(self, channel: Channel) -> None:
        waker = channel.waker = Waker()
        self._fd_to_chan[waker.fileno()] = (channel, "WAKE")
        self.poller.register(waker.fileno(), self.eventflags)

    def look_regularly(self, loop: Any) -> None:
        """Make an event loop look for messages of senders that don't ring."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._look_timer = loop.call_repeatedly(LOOK_S, self._look)

    def _look(self) -> None:
        for channel in tuple(self._channels):
            channel.look()

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Wait for one event where there is no event loop; raises Empty when there was none for a while."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look()
        rest = self._look_at - now
        super().get(callback, rest if timeout is None else min(timeout, rest))

    def discard(self, channel: Channel) -> None:  # type: ignore[override]
        """Forget a channel that closes."""
        if channel.waker is not None:
            fd = channel.waker.fileno()
            self._fd_to_chan.pop(fd, None)
            self._unregister_from_poll(fd)
        super().discard(channel)

    def on_readable(self, fileno: int) -> Any:
        """Handle what can be read. Unlike kombu's, reads a doorbell though the window is full: it pops no message."""
        found = self._fd_to_chan.get(fileno)
        if found is not None:
            channel, kind = found
            return channel.handlers[kind]()
        return None
