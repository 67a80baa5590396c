"""Decides whether anything may be claimed now, and has the transport claim again when that changes by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from headrace.contracts.jobs import SCORE_PREFIX
from headrace.workers.intake.window import Window
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.event_loop import EventLoop

#: Timers are no more exact than this.
TIMER_S: Final = 0.001


class ClaimGate:
    """The channel's window: open while the outbox holds little and the models will soon have nothing to run."""

    def __init__(self, window: Window, outbox: Outbox, loop: EventLoop, tickets: Callable[[], int] = lambda: 0) -> None:
        """It is open until `close`. tickets: how many tickets of bulk jobs may be claimed."""
        self._tickets = tickets
        self._window = window
        self._outbox = outbox
        self._loop = loop
        self._opens_at = 0.0
        self._closed = False

    def close(self) -> None:
        """Let nothing be claimed any more."""
        self._closed = True

    def room(self, queue: str) -> int:
        """Return how many requests may be claimed now from a queue: what may begin soon, and no more."""
        if self._closed or not self._outbox.available or not self._outbox.has_room:
            return 0
        # Tickets too are claimed only while requests may be: a channel that waited for the doorbells of tickets alone
        # would not hear those of requests until that wait is over.
        room = self._tickets() if queue.startswith(SCORE_PREFIX) else self._window.room(queue)
        if not room:
            return 0
        now = time.monotonic()
        opens_in_s = self._window.put_off_s(queue, now) or self._window.opens_in_s(now)
        if opens_in_s > 0:
            self._claim_in(opens_in_s, now)
            return 0
        return room

    def room_bytes(self) -> int:
        """Return about how many bytes one claim may take."""
        return max(1, int(self._window.room_bytes))

    def _claim_in(self, delay_s: float, now: float) -> None:
        """Claim after some seconds, unless a claim is due then or before anyway."""
        delay_s = max(delay_s, TIMER_S)
        if delay_s == math.inf or now < self._opens_at <= now + delay_s + TIMER_S:
            return
        self._opens_at = now + delay_s
        self._loop.call_later(delay_s, self._loop.claim_soon)
