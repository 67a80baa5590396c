"""Groups of bulk batches on the executor's thread, one batch at a time, between those of online requests."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, TypeAlias

from headrace.bulk.shards.inference import Answer
from headrace.contracts import HeadraceError, Tensors
from headrace.runtimes.base import OutOfMemory
from headrace.workers.bulk.shards.concurrent_batches import ConcurrentBatches
from headrace.workers.bulk.shards.sizing import BulkSizing
from headrace.workers.models.served_model import ServedModel

#: While nothing else has come, batches follow each other for so long without a look at what else is to do.
TURN_S: Final = 0.02

#: The cost model learns from one batch in so much time: bulk batches are all alike, and learning from one takes as long
#: as a tiny model's run of some rows.
OBSERVED_EVERY_S: Final = 0.01


#: The place of a shard in the queue for the executor: minus the priority of its job, and its number among the claims.
Order: TypeAlias = tuple[int, int]


class _Group:
    """One group on its way. at: the batch that is next; row: the first of its rows that has not run.

    order: groups of a lower one run first.
    """

    def __init__(self, served: ServedModel, batches: Sequence[Tensors], order: Order) -> None:
        self.served = served
        self.order = order
        self.batches = batches
        self.future: Future[list[Answer]] = Future()
        self.at = 0
        self.row = 0
        self._counts = [served.model.input_axes.count(batch) for batch in batches] if batches else []
        self._observed_at = 0.0
        self._answers: list[Answer] = []
        self._outputs: list[Tensors] = []
        self._seconds = 0.0

    @property
    def ended(self) -> bool:
        return self.at == len(self.batches)

    def left(self) -> int:
        """Return how many rows of the next batch have not run."""
        return self._counts[self.at] - self.row

    def run(self, rows: int) -> None:
        """Run the next rows of the next batch."""
        served, batch = self.served, self.batches[self.at]
        whole = self.row == 0 and rows >= self.left()
        piece = batch if whole else served.model.input_axes.cut(batch, self.row, self.row + rows)
        start = time.perf_counter()
        try:
            outputs = served.model.infer(piece, max_rows=max(rows, 1))
        except (MemoryError, OutOfMemory) as exc:
            if rows == 1:
                self._end_batch(exc if isinstance(exc, OutOfMemory) else OutOfMemory(str(exc)))
            else:
                served.ran_out_at(rows)
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its rows, not to the worker.
            self._end_batch(exc)
        else:
            seconds = time.perf_counter() - start
            if start >= self._observed_at + OBSERVED_EVERY_S:
                self._observed_at = start
                served.observe(rows, seconds)
            self._seconds += seconds
            self._outputs.append(outputs)
            self.row += rows
            if whole or not self.left():
                self._end_batch(None)

    def run_whole(self, most: int, ends_at: float, arrived: Callable[[], bool]) -> int:
        """Run whole batches of at most `most` rows until a time, or something arrives, or one fails; return how many.

        What is done for each batch is little here: a tiny model runs 64 rows in 0.1 ms.
        """
        infer, answers, clock = self.served.model.infer, self._answers, time.perf_counter
        at, last = self.at, len(self.batches) - 1
        start = clock()
        # The last one is left to `run`, which ends the group.
        while at < last and self._counts[at] <= most:
            try:
                outputs = infer(self.batches[at], max_rows=most)
            except Exception:  # noqa: BLE001 — it is run again, by `run`, which deals with it
                break
            now = clock()
            answers.append(Answer(outputs, None, now - start))
            if start >= self._observed_at + OBSERVED_EVERY_S:
                self._observed_at = start
                self.served.observe(self._counts[at], now - start)
            start = now
            at += 1
            if now >= ends_at or arrived():
                break
        ran, self.at = at - self.at, at
        return ran

    def _end_batch(self, error: Exception | None) -> None:
        outputs = self._outputs
        joined = {} if error is not None else self.served.model.output_axes.join(outputs)
        self._answers.append(Answer(joined, error, self._seconds))
        self._outputs, self.row, self._seconds = [], 0, 0.0
        self.at += 1
        if self.ended and self.future.set_running_or_notify_cancel():
            self.future.set_result(self._answers)


class BulkExecution:
    """The executor's source of bulk batches, and the place to which shards submit theirs.

    wake: makes the executor look for work. arrived: whether online requests have come that it has not seen.
    """

    def __init__(self, wake: Callable[[], None], arrived: Callable[[], bool], sizing: BulkSizing | None = None) -> None:
        """Nothing was submitted yet."""
        self._wake = wake
        self._arrived = arrived
        self._sizing = sizing or BulkSizing()
        self._groups: deque[_Group] = deque()
        self._closed = threading.Event()
        self._concurrent = ConcurrentBatches(self._closed)

    def submit(self, served: ServedModel, batches: Sequence[Tensors], order: Order = (0, 0)) -> Future[list[Answer]]:
        """Run the batches of a group in order; any thread. The future is cancelled by `close`.

        order: groups of a lower one run first, so that a shard that was claimed ahead fills the gaps of the one before
        it, and doesn't make it last twice as long.
        """
        if served.concurrent and batches and not self._closed.is_set():
            return self._concurrent.submit(served, batches, order)
        group = _Group(served, batches, order)
        if not batches:
            group.future.set_result([])
        elif self._closed.is_set():
            group.future.cancel()
        else:
            self._groups.append(group)
            self._wake()
            if self._closed.is_set():
                group.future.cancel()
        return group.future

    @property
    def ready(self) -> bool:
        """Whether a batch waits."""
        return bool(self._groups) and not self._closed.is_set()

    def take(self, now: float) -> BulkBatch | None:
        """Return the next batch, as large as online requests allow; drops groups that were cancelled."""
        group = self._first()
        return None if group is None else BulkBatch(self, group, self._rows_of(group, now))

    def _first(self) -> _Group | None:
        first: _Group | None = None
        for group in tuple(self._groups) if self.ready else ():
            if group.future.cancelled():
                self._groups.remove(group)
            elif first is None or group.order < first.order:
                first = group
        return first

    def _rows_of(self, group: _Group, now: float) -> int:
        served = group.served
        return min(self._sizing.rows(now, served.cost.predict, served.batcher.max_rows), group.left())

    def online(self, now: float, seconds: float) -> None:
        """Take note of an online batch that has ended."""
        self._sizing.online(now, seconds)

    def run(self, group: _Group, rows: int) -> None:
        """Run a batch, and those that follow while nobody else wants the executor."""
        ends_at = time.perf_counter() + TURN_S
        while True:
            ran = 0
            if group.row == 0 and rows >= min(group.served.batcher.max_rows, group.left()):
                ran = group.run_whole(rows, ends_at, self._arrived)
            if not ran:
                group.run(rows)
            if group.ended:
                self._groups.remove(group)
            if time.perf_counter() >= ends_at or self._arrived():
                return
            following = self._first()
            if following is None:
                return
            group, rows = following, self._rows_of(following, time.monotonic())

    def close(self) -> None:
        """Cancel what has not ended; the batch that runs goes on. Any thread."""
        self._closed.set()
        self._concurrent.close()
        for group in tuple(self._groups):
            group.future.cancel()


class BulkBatch:
    """A batch that is next. seconds: how long it takes, as predicted; infinity if unknown."""

    def __init__(self, execution: BulkExecution, group: _Group, rows: int) -> None:
        """rows: of its group's next batch."""
        self._execution = execution
        self.group = group
        self.rows = rows

    @property
    def seconds(self) -> float:
        """The predicted seconds of the run."""
        return self.group.served.cost.predict(self.rows) or math.inf

    def run(self) -> None:
        """Run it, and those that follow while nobody else wants the executor."""
        self._execution.run(self.group, self.rows)


class ShardInference:
    """The inference of one shard: `headrace.bulk.shards.inference.Inference` on the executor's thread."""

    def __init__(self, execution: BulkExecution, served: ServedModel, order: Order = (0, 0)) -> None:
        """served: is loaded. order: see `BulkExecution.submit`."""
        self._execution = execution
        self._served = served
        self._order = order

    def submit(self, batches: Sequence[Tensors]) -> Future[list[Answer]]:
        """Run the batches of a group, in order."""
        return self._execution.submit(self._served, batches, self._order)

    def explain(self, error: Exception, inputs: Tensors) -> HeadraceError:
        """Return the error of a row whose run, alone, failed for good."""
        return self._served.model.cause_of(error, inputs)
