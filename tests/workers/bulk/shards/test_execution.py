"""Bulk batches on the executor's thread: in order, whole where nobody waits, and one at a time where somebody does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.workers.conftest import write_package

from headrace.contracts import ModelDirectory, Tensors
from headrace.runtimes.base import OutOfMemory
from headrace.workers.bulk.shards.execution import BulkExecution
from headrace.workers.models.served_model import ServedModel

MOST = 8


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    write_package(
        tmp_path,
        "double",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"x": ("FP32", (1,))},
        {"y": ("FP32", (1,))},
        [("two", np.float32(2))],
        extra=f"[batching]\nmax_rows = {MOST}\n",
    )
    served = ServedModel(ModelDirectory(tmp_path).get("double"), device="cpu", threads=1)
    served.load()
    return served


def batches(*sizes: int) -> list[Tensors]:
    starts = np.cumsum([0, *sizes])
    return [{"x": np.arange(a, a + size, dtype=np.float32)[:, None]} for a, size in zip(starts, sizes, strict=False)]


def run_all(execution: BulkExecution, after_each: Callable[[], None] = lambda: None) -> None:
    while (batch := execution.take(time.monotonic())) is not None:
        batch.run()
        after_each()


def values(answers: list[Any]) -> list[list[float]]:
    return [answer.outputs["y"][:, 0].tolist() for answer in answers]


def replaced(served: ServedModel, monkeypatch: pytest.MonkeyPatch, infer: Callable[[Tensors], Tensors]) -> None:
    monkeypatch.setattr(served.model, "infer", lambda inputs, max_rows: infer(inputs))


def test_each_batch_has_its_answer_in_order(served: ServedModel) -> None:
    execution = BulkExecution(lambda: None, lambda: False)
    futures = [execution.submit(served, batches(*sizes)) for sizes in ((8, 8, 3), (5,), ())]
    run_all(execution)
    assert values(futures[0].result(0)) == [
        [2.0 * at for at in span] for span in (range(8), range(8, 16), range(16, 19))
    ]
    assert values(futures[1].result(0)) == [[2.0 * at for at in range(5)]]
    assert futures[2].result(0) == []
    assert not execution.ready


def test_no_more_than_one_batch_runs_when_an_online_request_has_come(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def infer(inputs: Tensors) -> Tensors:
        sizes.append(len(inputs["x"]))
        return {"y": 2 * inputs["x"]}

    replaced(served, monkeypatch, infer)
    execution = BulkExecution(lambda: None, lambda: True)
    execution.submit(served, batches(8, 8, 8))
    batch = execution.take(time.monotonic())
    assert batch is not None
    batch.run()
    assert sizes == [8]


def test_beside_online_requests_batches_are_cut_and_their_outputs_joined(served: ServedModel) -> None:
    execution = BulkExecution(lambda: None, lambda: False)
    served.cost.seconds_per_row = 1.0
    execution.online(time.monotonic(), 4.0)
    future = execution.submit(served, batches(8, 5))
    first = execution.take(time.monotonic())
    assert first is not None
    assert first.rows == 1
    run_all(execution)
    assert values(future.result(0)) == [[2.0 * at for at in range(8)], [2.0 * at for at in range(8, 13)]]


def test_a_batch_that_fails_fails_alone(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(inputs: Tensors) -> Tensors:
        if 9.0 in inputs["x"]:
            raise ValueError("no 9")
        return {"y": 2 * inputs["x"]}

    replaced(served, monkeypatch, infer)
    execution = BulkExecution(lambda: None, lambda: False)
    future = execution.submit(served, batches(8, 8, 8))
    run_all(execution)
    assert [type(answer.error) for answer in future.result(0)] == [type(None), ValueError, type(None)]


def test_out_of_memory_makes_batches_smaller(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(inputs: Tensors) -> Tensors:
        if len(inputs["x"]) > 3:
            raise OutOfMemory("too much")
        return {"y": 2 * inputs["x"]}

    replaced(served, monkeypatch, infer)
    execution = BulkExecution(lambda: None, lambda: False)
    future = execution.submit(served, batches(8, 2))
    run_all(execution)
    assert values(future.result(0)) == [[2.0 * at for at in range(8)], [16.0, 18.0]]


def test_a_row_for_which_there_is_no_memory_even_alone_fails(
    served: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infer(inputs: Tensors) -> Tensors:
        raise MemoryError

    replaced(served, monkeypatch, infer)
    execution = BulkExecution(lambda: None, lambda: False)
    future = execution.submit(served, batches(2))
    run_all(execution)
    assert isinstance(future.result(0)[0].error, OutOfMemory)


def test_what_has_not_ended_is_cancelled_when_the_worker_ends(served: ServedModel) -> None:
    execution = BulkExecution(lambda: None, lambda: True)
    running, waiting = execution.submit(served, batches(8, 8)), execution.submit(served, batches(8))
    batch = execution.take(time.monotonic())
    assert batch is not None
    batch.run()
    execution.close()
    for future in (running, waiting, execution.submit(served, batches(1))):
        with pytest.raises(CancelledError):
            future.result(0)
    assert execution.take(time.monotonic()) is None


def test_every_submission_wakes_the_executor(served: ServedModel) -> None:
    wakes: list[None] = []
    execution = BulkExecution(lambda: wakes.append(None), lambda: False)
    for _ in range(3):
        execution.submit(served, batches(1))
    assert len(wakes) == 3
