"""Batches in flight: models that take several at once run each batch on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from headrace.workers.execution.layers.base import BatchContext
from headrace.workers.models.served_model import ServedModel
from headrace.workers.process.fatal_thread import fatal_thread


class InFlight:
    """A small pool of threads, as many as batches were ever in flight at once: `max_in_flight` a model.

    run: takes a batch through its layers to the outbox. ended: called after each batch, on the thread that ran it.
    """

    def __init__(self, run: Callable[[BatchContext], None], ended: Callable[[], None]) -> None:
        """No thread is started yet."""
        self._run = run
        self._ended = ended
        self._batches: queue.SimpleQueue[BatchContext | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._busy = 0

    def has_room_for(self, served: ServedModel) -> bool:
        """Return whether a batch of a model may start besides those in flight; always, if it runs one at a time."""
        return not served.concurrent or served.in_flight < served.max_in_flight

    def start(self, batch: BatchContext) -> None:
        """Start a batch for which there is room."""
        with self._lock:
            batch.served.in_flight += 1
            self._busy += 1
            busy = self._busy
        if busy > len(self._threads):
            thread = fatal_thread(f"headrace-in-flight-{busy}", self._loop)
            self._threads.append(thread)
            thread.start()
        self._batches.put(batch)

    def join(self) -> None:
        """Wait until all batches in flight have ended, and end the threads."""
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()

    def _loop(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._run(batch)
            with self._lock:
                batch.served.in_flight -= 1
                self._busy -= 1
            self._ended()
