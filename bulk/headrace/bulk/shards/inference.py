"""Inference as a shard sees it: batches go in, outputs or errors come out; and the search for the rows to blame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import HeadraceError, PackageError
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import TransientFailure


class Answer(msgspec.Struct, frozen=True):
    """The outcome of one batch. error: None when there are outputs. seconds: of its run."""

    outputs: Tensors
    error: Exception | None = None
    seconds: float = 0.0


class Inference(Protocol):
    """Runs batches on the model, one group after the other."""

    def submit(self, batches: Sequence[Tensors]) -> Future[list[Answer]]:
        """Run the batches of a group; an answer for each, in order. The future is cancelled when the worker ends."""
        ...

    def explain(self, error: Exception, inputs: Tensors) -> HeadraceError:
        """Return the error of a row whose run, alone, failed for good."""
        ...


class Blamed(msgspec.Struct, frozen=True):
    """A row that fails even alone. at: its index in the batch."""

    at: int
    error: HeadraceError


class Isolated(msgspec.Struct, frozen=True):
    """A batch that failed, taken apart. outputs: of the rows at `good`, by index in the batch."""

    good: NDArray[np.int64]
    outputs: list[Tensors]
    blamed: list[Blamed]


def isolate(batch: Tensors, error: Exception, inference: Inference, axes: RowAxes) -> Isolated:
    """Halve a batch that failed until each row to blame stands alone.

    Raises TransientFailure when the device, PackageError when the model, and no row is to blame.
    """
    rows = axes.count(batch)
    found = _Search(batch, inference, axes)
    found.run(0, rows, error)
    good = np.array(found.good, np.int64)
    return Isolated(good, found.outputs, found.blamed)


class _Search:
    def __init__(self, batch: Tensors, inference: Inference, axes: RowAxes) -> None:
        self._batch = batch
        self._inference = inference
        self._axes = axes
        self.good: list[int] = []
        self.outputs: list[Tensors] = []
        self.blamed: list[Blamed] = []

    def run(self, start: int, stop: int, error: Exception) -> None:
        """Take the rows apart that failed together with this error."""
        if isinstance(error, TransientFailure | PackageError):
            raise error
        if stop - start == 1:
            inputs = self._axes.cut(self._batch, start, stop)
            self.blamed.append(Blamed(start, self._inference.explain(error, inputs)))
            return
        middle = (start + stop) // 2
        pieces = ((start, middle), (middle, stop))
        answers = self._inference.submit([self._axes.cut(self._batch, *piece) for piece in pieces]).result()
        for (first, last), answer in zip(pieces, answers, strict=True):
            if answer.error is not None:
                self.run(first, last, answer.error)
            else:
                self.good += range(first, last)
                self.outputs.append(answer.outputs)


#: Runs one batch and returns its outputs, for `Direct`.
Run = Callable[[Tensors], Tensors]


class Direct:
    """Inference on the calling thread, for tests, dry runs and programs of their own."""

    def __init__(self, run: Run, explain: Callable[[Exception, Tensors], HeadraceError]) -> None:
        """run: runs a batch. explain: as `Inference.explain`."""
        self._run = run
        self.explain = explain

    def submit(self, batches: Sequence[Tensors]) -> Future[list[Answer]]:
        """Run the batches at once."""
        future: Future[list[Answer]] = Future()
        future.set_result([self._answer(batch) for batch in batches])
        return future

    def _answer(self, batch: Tensors) -> Answer:
        start = time.perf_counter()
        try:
            outputs = self._run(batch)
        except Exception as exc:  # noqa: BLE001 — whatever a model raises belongs to its rows
            return Answer({}, exc)
        return Answer(outputs, None, time.perf_counter() - start)
