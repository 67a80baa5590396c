"""Arrivals: admitted requests on their way to the executor, and back to the server when they would wait for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from headrace.queueing import ClaimingConsumer
from headrace.workers.batching import prefetch
from headrace.workers.execution.executor import Executor
from headrace.workers.execution.isolation import is_isolated
from headrace.workers.intake.window import Window
from headrace.workers.outbox.finished import not_run, postponed
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.event_loop import EventLoop
from headrace.workers.process.gil_handoff import SMALL_CLAIM, GilHandoff
from headrace.workers.request import InferenceRequest, Outcome

logger = logging.getLogger(__name__)

#: While anything waits for the model, the main thread checks this often whether it has to wait too long; a check costs
#: some microseconds.
WATCH_S: Final = 0.05


class Destinations(msgspec.Struct, frozen=True):
    """Where requests go on from here.

    look_up: takes a redelivered request, and how it ends if it has no row. received: told of accepted requests.
    """

    executor: Executor
    outbox: Outbox
    look_up: Callable[[InferenceRequest, Outcome | None], None]
    received: Callable[[Sequence[InferenceRequest]], None]


class Arrivals:
    """Admits parsed requests, and hands those of one claim to the executor together; main thread."""

    def __init__(self, to: Destinations, window: Window, handoff: GilHandoff, loop: EventLoop) -> None:
        """Nothing has arrived yet."""
        self._executor = to.executor
        self._outbox = to.outbox
        self._ask = to.look_up
        self._received = to.received
        self._window = window
        self._handoff = handoff
        self._loop = loop
        self._arrived: list[InferenceRequest] = []
        self._checks_at = 0.0
        self._closed = False

    def admit(self, request: InferenceRequest) -> None:
        """Take a checked request; it is handed to the executor together with the others of this claim."""
        self._window.admit(request.served.queue, request.rows, request.size_bytes)  # type: ignore[union-attr]  # checked
        self.gather(request)

    def look_up(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        """Take a request that was delivered before: unless it has a row, it runs, or ends as `ending` says."""
        if request.rows:
            assert request.served is not None
            self._window.admit(request.served.queue, request.rows, request.size_bytes)
        self._ask(request, ending)

    def end(self, outcome: Outcome) -> None:
        """End a request that never reaches a model."""
        self._outbox.put(not_run(outcome.request.served, [outcome]))

    def postpone(self, request: InferenceRequest, delay_s: float) -> None:
        """Let a request whose time has not come wait in the server, where any worker finds it."""
        self._outbox.put(postponed(request, delay_s))

    def gather(self, request: InferenceRequest) -> None:
        """Take a request that the window counts already."""
        if not self._arrived:
            self._loop.call_soon(self._flush)
        self._arrived.append(request)

    def discount(self, request: InferenceRequest) -> None:
        """Count a request as if it had never been admitted."""
        assert request.served is not None
        self._window.withdraw(request.served.queue, request.rows, request.size_bytes)

    def close(self) -> None:
        """Hand over what has arrived, and take nothing back any more."""
        self._closed = True
        self._flush()

    def take_back(self) -> None:
        """Put back requests that would wait for long, so that a free worker can take them."""
        if not self._closed and self._holds_up():
            self._put_back(self._executor.take_back())

    def _flush(self) -> None:
        if not self._arrived:
            return
        requests, self._arrived = self._arrived, []
        if self._holds_up():
            requests = self._put_back(requests)
            if not requests:
                return
        self._watch()
        if len(requests) <= SMALL_CLAIM and self._executor.is_waiting:
            self._handoff.run_and_yield(lambda: self._executor.submit(requests))
        else:
            self._executor.submit(requests)
        self._received(requests)

    def _holds_up(self) -> bool:
        """Whether requests that wait for the model have to wait for long."""
        running = self._executor.running
        return running is not None and prefetch.goes_back(running.rest_s(time.monotonic()))

    def _put_back(self, requests: list[InferenceRequest]) -> list[InferenceRequest]:
        """Put requests back at the head of their queues, as if nobody had claimed them; return those that stay here."""
        back = [request for request in requests if not is_isolated(request)]
        for request in back:
            self.discount(request)
        release(back)
        return [request for request in requests if is_isolated(request)]

    def _watch(self) -> None:
        """Check now and then whether a batch runs so late that what waits behind it should go back."""
        now = time.monotonic()
        # By time: with a lost connection timers may be gone too.
        if now >= self._checks_at:
            self._checks_at = now + WATCH_S
            self._loop.call_later(WATCH_S, self._check)

    def _check(self) -> None:
        if not self._executor.is_waiting and not self._closed:
            self.take_back()
            self._checks_at = 0.0
            self._watch()


def release(requests: Sequence[InferenceRequest]) -> None:
    """Put requests back at the head of their queues."""
    by_consumer: dict[ClaimingConsumer, list[str]] = {}
    for request in requests:
        by_consumer.setdefault(request.consumer, []).append(request.tag)
    for consumer, tags in by_consumer.items():
        consumer.release(tags)
