"""Models whose rows depend on each other: served alone when the package says so, found at run time when it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from onnx import helper
from tests.workers.conftest import StartWorker, write_package
from tests.workers.example_request import made_request
from tests.workers.predictions import prediction_of

from headrace.contracts import Settings, Signature, Tensors, TensorSpec
from headrace.producers import Client
from headrace.workers.execution.layers.row_independence import RowIndependenceCheck, run_again_alone
from headrace.workers.execution.runner import Runner
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.checked_model import CheckedModel

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(2,)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(2,)),),
)


class Centred:
    """Subtracts the mean of all rows, or does nothing."""

    def __init__(self, centres: bool = True) -> None:
        self.centres = centres
        self.runs = 0

    def infer(self, inputs: Tensors) -> Tensors:
        self.runs += 1
        x = inputs["x"]
        return {"y": x - x.mean(axis=0) if self.centres else x}

    def close(self) -> None:
        pass


def shared_run(model: CheckedModel) -> Verdict:
    requests = [made_request({"x": np.full((1, 2), number, np.float32)}, 1) for number in range(8)]
    return Runner(model, 64).run(requests)


def test_one_batch_in_so_many_is_checked() -> None:
    bare = Centred(centres=False)
    model = CheckedModel(bare, SIGNATURE)
    check = RowIndependenceCheck(3, Random(0))
    for _ in range(9):
        assert check(model, shared_run(model)) == ""
    assert bare.runs == 9 + 3


def test_a_request_without_company_is_not_checked() -> None:
    bare = Centred()
    model = CheckedModel(bare, SIGNATURE)
    verdict = Runner(model, 64).run([made_request({"x": np.ones((3, 2), np.float32)}, 3)])
    assert RowIndependenceCheck(1, Random(0))(model, verdict) == ""
    assert bare.runs == 1


def test_no_check_is_made_unless_it_is_asked_for() -> None:
    model = CheckedModel(Centred(), SIGNATURE)
    assert RowIndependenceCheck(0, Random(0))(model, shared_run(model)) == ""


def test_dependence_is_found_and_what_ran_in_company_is_computed_anew() -> None:
    model = CheckedModel(Centred(), SIGNATURE)
    verdict = shared_run(model)
    assert "output 'y' differs: by" in RowIndependenceCheck(1, Random(0))(model, verdict)
    model.independent_rows = False
    run_again_alone(model, verdict)
    assert [run.outputs["y"].tolist() for run in verdict.runs] == [[[0.0, 0.0]]] * 8


@pytest.fixture
def centred(models: Path) -> Callable[..., None]:
    """Writes the package of a model that subtracts the mean of all rows."""

    def write(extra: str = "") -> None:
        nodes = [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ]
        four = ("FP32", (4,))
        write_package(models, "centred", nodes, {"x": four}, {"y": four}, [("axes", np.array([0]))], extra=extra)

    return write


def answers(client: Client, inputs: np.ndarray) -> tuple[np.ndarray, list[int | None]]:
    """What each row gets when all are submitted at once."""
    handles = client.submit_many("centred", {"x": inputs})
    results = [handle.result(timeout_s=60)["y"] for handle in handles]
    return np.concatenate(results), [prediction_of(client, handle.id).batch_rows for handle in handles]


def test_requests_of_a_model_with_dependent_rows_run_alone(
    settings: Settings, start_worker: StartWorker, centred: Callable[..., None]
) -> None:
    centred("[batching]\nindependent_rows = false\n")
    inputs = np.random.default_rng(0).random((100, 4), dtype=np.float32)
    with Client(settings) as client, start_worker():
        results, batches = answers(client, inputs)
        np.testing.assert_array_equal(results, np.zeros_like(inputs))
        assert batches == [1] * 100
        whole = client.predict("centred", {"x": inputs}, timeout_s=60)["y"]
        np.testing.assert_allclose(whole, inputs - inputs.mean(axis=0), atol=1e-6)


def test_dependence_that_nobody_knew_is_found_at_run_time_and_no_wrong_answer_leaves(
    settings: Settings, start_worker: StartWorker, centred: Callable[..., None], tmp_path: Path
) -> None:
    centred()
    inputs = np.random.default_rng(0).random((200, 4), dtype=np.float32)
    with Client(settings) as client, start_worker(HEADRACE_CHECK_EVERY="1"):
        results, _ = answers(client, inputs)
        np.testing.assert_array_equal(results, np.zeros_like(inputs))
    log = (tmp_path / "worker.log").read_text()
    assert log.count("rows.dependent model=centred 1: output 'y' differs: by") == 1
