"""The way of redelivered messages between the threads: decoded by the executor, looked up, and back to the others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from headrace.workers.execution.executor import Executor, Probe
from headrace.workers.intake.arrivals import Arrivals
from headrace.workers.intake.window import Window
from headrace.workers.outbox.finished import answered
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.event_loop import EventLoop
from headrace.workers.redelivery.lookup import Classified
from headrace.workers.request import InferenceRequest

if TYPE_CHECKING:
    from headrace.queueing import Delivery

logger = logging.getLogger(__name__)


class ProbedMessage(Probe, Protocol):
    """A redelivered message; `go_on` is called on the main thread when it is decoded."""

    @property
    def delivery(self) -> Delivery:
        """The message as it was claimed."""
        ...

    def go_on(self) -> None:
        """Pass the decoded message on."""
        ...


class Redeliveries:
    """Passes redelivered messages to the executor and the store's look-up, and their outcome to the main thread."""

    def __init__(
        self,
        executor: Executor,
        arrivals: Arrivals,
        window: Window,
        outbox: Outbox,
        loop: EventLoop,
        received: Callable[[Sequence[InferenceRequest]], None],
    ) -> None:
        """received: told of requests that were accepted."""
        self._executor = executor
        self._arrivals = arrivals
        self._window = window
        self._outbox = outbox
        self._loop = loop
        self._received = received
        self._opened: deque[ProbedMessage] = deque()
        self._closed = False

    def close(self) -> None:
        """Stop; messages on their way are redelivered when the lease ends."""
        self._closed = True

    def probe(self, message: ProbedMessage) -> None:
        """Have a message decoded by the executor; then it goes on, on the main thread."""
        # It takes a row's place in the window meanwhile.
        self._window.admit(message.delivery.queue, 1, len(message.delivery.raw))
        self._executor.probe(message)

    def on_opened(self, message: ProbedMessage) -> None:
        """Go on with this message on the main thread, after those decoded before; called on the executor's thread."""
        self._opened.append(message)
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        while self._opened and not self._closed:
            message = self._opened.popleft()
            self._window.withdraw(message.delivery.queue, 1, len(message.delivery.raw))
            message.go_on()

    def on_classified(self, classified: Classified) -> None:
        """Go on with these requests on the main thread; called on the look-up's thread."""
        self._loop.call_soon(lambda: self.resume(classified))

    def resume(self, classified: Classified) -> None:
        """Run, end or answer requests as the look-up found."""
        if self._closed:
            return  # they are still held, and go back with the consumer
        for request in classified.to_run:
            self._arrivals.gather(request)
        for outcome in (*classified.poison, *classified.ended):
            if outcome.request.rows:
                self._arrivals.discount(outcome.request)
                self._received([outcome.request])
            self._arrivals.end(outcome)
        if classified.already_stored:
            for stored in classified.already_stored:
                if stored.request.rows:
                    self._arrivals.discount(stored.request)
            logger.info("answered %d redelivered requests from their rows", len(classified.already_stored))
            self._outbox.put(answered(classified.already_stored))
        self._executor.wake()
        self._loop.claim_soon()
