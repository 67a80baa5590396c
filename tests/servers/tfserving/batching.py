"""The batches that a server of TensorFlow Serving's rules puts together before it runs them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tests.servers.tfserving.tensors import Tensors

Run = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Batching:
    """The fields of TensorFlow Serving's BatchingParameters. allowed_batch_sizes: the last is max_batch_size."""

    max_batch_size: int
    allowed_batch_sizes: tuple[int, ...] = ()
    batch_timeout_s: float = 0.001
    max_enqueued_batches: int = 100


@dataclass
class _Batch:
    key: Hashable
    run: Run
    opened_at: float
    tasks: list[tuple[Tensors, int, Future[Tensors]]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(rows for _, rows, _ in self.tasks)


class Batcher:
    """One thread that runs batches; tasks with the same key share them."""

    def __init__(self, rules: Batching) -> None:
        self._rules = rules
        self._batches: deque[_Batch] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run_batches, daemon=True).start()

    def run(self, key: Hashable, inputs: Tensors, run: Run) -> Tensors:
        """Run inputs together with those of others. Raises the errors that TensorFlow's schedulers raise."""
        sizes = {len(array) if array.ndim else -1 for array in inputs.values()}
        if len(sizes) != 1 or -1 in sizes:
            raise tf.errors.InvalidArgumentError(
                None, None, "Batching session Run() input tensors must have equal 0th-dimension size"
            )
        (rows,) = sizes
        if rows > self._rules.max_batch_size:
            limit = self._rules.max_batch_size
            text = f"Task size {rows} is larger than maximum input batch size {limit}"
            raise tf.errors.InvalidArgumentError(None, None, text)
        future: Future[Tensors] = Future()
        with self._changed:
            self._batch_for(key, rows, run).tasks.append((inputs, rows, future))
            self._changed.notify()
        return future.result()

    def _batch_for(self, key: Hashable, rows: int, run: Run) -> _Batch:
        last = self._batches[-1] if self._batches else None
        if last is not None and last.key == key and last.rows + rows <= self._rules.max_batch_size:
            return last
        if len(self._batches) >= self._rules.max_enqueued_batches:
            raise tf.errors.UnavailableError(
                None,
                None,
                "The batch scheduling queue to which this task was submitted is full; all batch threads are busy",
            )
        self._batches.append(_Batch(key, run, time.monotonic()))
        return self._batches[-1]

    def _run_batches(self) -> None:
        while True:
            with self._changed:
                while (wait_s := self._wait_s()) != 0:
                    self._changed.wait(wait_s)
                batch = self._batches.popleft()
            self._run_one(batch)

    def _wait_s(self) -> float | None:
        if not self._batches:
            return None
        first = self._batches[0]
        if len(self._batches) > 1 or first.rows >= self._rules.max_batch_size:
            return 0
        return max(first.opened_at + self._rules.batch_timeout_s - time.monotonic(), 0)

    def _run_one(self, batch: _Batch) -> None:
        try:
            rows = batch.rows
            names = batch.tasks[0][0]
            joined = {name: np.concatenate([inputs[name] for inputs, _, _ in batch.tasks]) for name in names}
            size = next((size for size in self._rules.allowed_batch_sizes if size >= rows), rows)
            padded = {name: np.concatenate([a, np.repeat(a[:1], size - rows, 0)]) for name, a in joined.items()}
            outputs = batch.run(padded)
        except Exception as exc:  # noqa: BLE001 - every caller of the batch gets it
            for _, _, future in batch.tasks:
                future.set_exception(exc)
            return
        start = 0
        for _, size, future in batch.tasks:
            future.set_result({name: array[start : start + size] for name, array in outputs.items()})
            start += size


def describe(rules: dict[str, Any]) -> Batching:
    """Return the rules that a configuration gives."""
    return Batching(**{**rules, "allowed_batch_sizes": tuple(rules.get("allowed_batch_sizes", ()))})
