"""Bulk batches of models that take several at once, as on a model server: on threads of their own, side by side."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

from headrace.bulk.shards.inference import Answer
from headrace.contracts import Tensors
from headrace.runtimes.base import Unavailable
from headrace.runtimes.remote.base import BatchTooLarge
from headrace.workers.models.served_model import ServedModel
from headrace.workers.process.fatal_thread import fatal_thread

#: While a server is away or busy, a batch waits for this long at least before it is tried again.
LEAST_WAIT_S: Final = 0.1

#: A batch that was put off for so long goes back with its shard, which another worker may claim, or a person cancel.
PATIENCE_S: Final = 30.0


class _Group:
    """The batches of a group; its future ends with the last of them."""

    def __init__(self, served: ServedModel, batches: Sequence[Tensors]) -> None:
        self.served = served
        self.batches = batches
        self.future: Future[list[Answer]] = Future()
        self._answers: list[Answer | None] = [None] * len(batches)
        self._left = len(batches)
        self._lock = threading.Lock()

    def end(self, at: int, answer: Answer) -> None:
        """Take the answer to one batch."""
        with self._lock:
            self._answers[at] = answer
            self._left -= 1
            if self._left:
                return
        if self.future.set_running_or_notify_cancel():
            self.future.set_result([answer for answer in self._answers if answer is not None])


class ConcurrentBatches:
    """Runs batches on as many threads as the model takes at once, but one, which is left to online requests."""

    def __init__(self, closed: threading.Event) -> None:
        """closed: set when the worker ends."""
        self._closed = closed
        #: The order of the group, a number that settles ties, the group (None ends a thread), and which of its batches.
        self._tasks: queue.PriorityQueue[tuple[tuple[int, int], int, _Group | None, int]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._threads = 0

    def submit(self, served: ServedModel, batches: Sequence[Tensors], order: tuple[int, int]) -> Future[list[Answer]]:
        """Run the batches of a group; any thread. order: groups of a lower one run first."""
        group = _Group(served, batches)
        for at in range(len(batches)):
            self._tasks.put((order, next(self._numbers), group, at))
        with self._lock:
            wanted = max(served.max_in_flight - 1, 1)
            for _ in range(min(wanted - self._threads, len(batches))):
                self._threads += 1
                fatal_thread(f"headrace-bulk-batch-{self._threads}", self._loop).start()
        if self._closed.is_set():
            group.future.cancel()
        return group.future

    def close(self) -> None:
        """Cancel what has not begun; call it when the event is set."""
        while True:
            try:
                *_, group, _at = self._tasks.get_nowait()
            except queue.Empty:
                break
            if group is not None:
                group.future.cancel()
        for _ in range(self._threads):
            self._tasks.put(((0, 0), next(self._numbers), None, 0))

    def _loop(self) -> None:
        while not self._closed.is_set():
            *_, group, at = self._tasks.get()
            if group is None:
                return
            if group.future.cancelled():
                continue
            group.end(at, self._answer(group, group.batches[at]))

    def _answer(self, group: _Group, batch: Tensors) -> Answer:
        served = group.served
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            began = time.perf_counter()
            most = served.batcher.max_rows
            try:
                outputs = served.model.infer(batch, max_rows=most)
            except Unavailable as exc:
                if time.monotonic() >= give_up_at or self._closed.wait(max(exc.retry_after_s, LEAST_WAIT_S)):
                    return Answer({}, exc)
            except BatchTooLarge as exc:
                if not _lowered(served, min(served.model.input_axes.count(batch), most), exc):
                    return Answer({}, exc)
            except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its rows, not to the worker.
                return Answer({}, exc)
            else:
                return Answer(outputs, None, time.perf_counter() - began)


def _lowered(served: ServedModel, rows: int, exc: BatchTooLarge) -> bool:
    """Make batches smaller, since one of this many rows was too large; return whether that is possible."""
    if 0 < exc.most_rows < rows:
        served.refused_above(exc.most_rows)
    elif rows > 1:
        served.ran_out_at(rows)
    return served.batcher.max_rows < rows
