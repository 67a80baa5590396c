"""Bulk batches of a model on a server: side by side, in order of their groups, and patient."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.endpoints.scripted import Scripted, remote_model
from tests.workers.servers.conftest import write_package

from headrace.contracts import ModelDirectory, Tensors
from headrace.runtimes.remote.base import BatchTooLarge, Refused, ServerAway
from headrace.workers.bulk.shards.execution import BulkExecution
from headrace.workers.models.served_model import ServedModel


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def served(tmp_path: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch) -> ServedModel:
    write_package(tmp_path, "grpc://localhost:1")
    served = ServedModel(ModelDirectory(tmp_path).get("m"), device="cpu", threads=1)
    model = remote_model(server, max_in_flight=4)
    monkeypatch.setattr("headrace.workers.models.served_model.load_model", lambda *_: model)
    served.load()
    return served


@pytest.fixture
def execution() -> Iterator[BulkExecution]:
    with closing(BulkExecution(lambda: None, lambda: False)) as execution:
        yield execution


def batches(count: int, rows: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"x": np.full((rows, 1), number, np.float32)} for number in range(count)]


def firsts(answers: list[Any]) -> list[float]:
    return [answer.outputs["y"][0, 0].item() for answer in answers]


def test_batches_run_side_by_side_and_leave_one_place_to_online_requests(
    execution: BulkExecution, served: ServedModel, server: Scripted
) -> None:
    server.run_s = 0.02
    futures = [execution.submit(served, batches(20)) for _ in range(2)]
    for future in futures:
        assert firsts(future.result(60)) == [2.0 * number for number in range(20)]
    assert server.most == 3


def test_nothing_is_left_to_the_executor(execution: BulkExecution, served: ServedModel) -> None:
    execution.submit(served, batches(3)).result(60)
    assert not execution.ready
    assert execution.submit(served, []).result(1) == []


def test_a_server_that_is_away_is_waited_for(execution: BulkExecution, served: ServedModel, server: Scripted) -> None:
    server.error = ServerAway("killed")
    future = execution.submit(served, batches(5))
    time.sleep(0.3)
    assert not future.done()
    server.error = None
    assert firsts(future.result(60)) == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_a_batch_too_large_is_cut(execution: BulkExecution, served: ServedModel, server: Scripted) -> None:
    def answer(inputs: Tensors) -> Tensors:
        if len(inputs["x"]) > 3:
            raise BatchTooLarge("at most 3", 3)
        return {"y": 2 * inputs["x"]}

    server.answer = answer
    found = execution.submit(served, batches(6, rows=8)).result(60)
    assert [len(each.outputs["y"]) for each in found] == [8] * 6
    assert served.batcher.max_rows == 3


def test_a_row_that_is_too_large_by_itself_is_an_answer(
    execution: BulkExecution, served: ServedModel, server: Scripted
) -> None:
    server.error = BatchTooLarge("too many bytes")
    (answer,) = execution.submit(served, batches(1, rows=1)).result(60)
    assert isinstance(answer.error, BatchTooLarge)


def test_a_refusal_is_that_of_its_batch(execution: BulkExecution, served: ServedModel, server: Scripted) -> None:
    def answer(inputs: Tensors) -> Tensors:
        if inputs["x"][0, 0] == 1:
            raise Refused("no")
        return {"y": 2 * inputs["x"]}

    server.answer = answer
    found = execution.submit(served, batches(3)).result(60)
    assert [type(each.error) for each in found] == [type(None), Refused, type(None)]


def test_the_end_of_the_worker_cancels_what_has_not_begun(
    execution: BulkExecution, served: ServedModel, server: Scripted
) -> None:
    held = threading.Event()

    def answer(inputs: Tensors) -> Tensors:
        held.wait(60)
        return {"y": 2 * inputs["x"]}

    server.answer = answer
    future = execution.submit(served, batches(50))
    eventually(lambda: server.calls, 30, "a batch that runs")
    execution.close()
    held.set()
    with pytest.raises(CancelledError):
        future.result(60)
    assert server.calls <= 4
