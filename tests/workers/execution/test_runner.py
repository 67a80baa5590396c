"""Packing, running in pieces, and finding the offender: pure, with a model made of a function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.example_request import made_request

from headrace.contracts import Signature, State, Tensors, TensorSpec
from headrace.runtimes.base import LoadedModel
from headrace.workers.execution.layers.revoked import end_cancelled
from headrace.workers.execution.runner import Runner
from headrace.workers.models.checked_model import CheckedModel
from headrace.workers.models.failures import BrokenContract
from headrace.workers.request import InferenceRequest

X = TensorSpec(name="x", datatype="FP32")
Y = TensorSpec(name="y", datatype="FP32")
SIGNATURE = Signature(inputs=(X,), outputs=(Y,))


class Doubler:
    """Doubles; refuses a batch with a negative number in it; notes the sizes it ran."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def infer(self, inputs: Tensors) -> Tensors:
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise ValueError("negative: secret detail")
        return {"y": inputs["x"] * 2}

    def close(self) -> None:
        pass


def request(values: Sequence[float]) -> InferenceRequest:
    return made_request({"x": np.array(values, np.float32)}, len(values))


def runner(model: LoadedModel, max_rows: int) -> Runner:
    return Runner(CheckedModel(model, SIGNATURE), max_rows)


@given(st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=3), min_size=1, max_size=12), st.integers(1, 6))
def test_each_request_gets_its_own_rows_and_only_culprits_fail(values: list[list[int]], max_rows: int) -> None:
    requests = [request(each) for each in values]
    verdict = runner(Doubler(), max_rows).run(requests)
    runs, outcomes = verdict.runs, verdict.outcomes
    got = {}
    for run in runs:
        start = 0
        for one in run.requests:
            got[one.id] = run.outputs["y"][start : start + one.rows].tolist()
            start += one.rows
        assert start == len(run.outputs["y"])
    failed = {outcome.request.id for outcome in outcomes}
    for one, each in zip(requests, values, strict=True):
        if min(each) < 0:
            assert one.id in failed
        else:
            assert got[one.id] == [2.0 * value for value in each]
    assert len(got) + len(failed) == len(requests)
    assert all(outcome.state is State.FAILED and "secret" not in outcome.error.message for outcome in outcomes)


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=8), st.integers(1, 6))
def test_what_was_cancelled_while_it_ran_ends_so_and_its_neighbours_keep_their_rows(
    shapes: list[tuple[int, bool]], max_rows: int
) -> None:
    requests = [request([float(number)] * rows) for number, (rows, _) in enumerate(shapes)]
    revoked = {one.id for one, (_, cancelled) in zip(requests, shapes, strict=True) if cancelled}
    verdict = runner(Doubler(), max_rows).run(requests)
    end_cancelled(verdict, revoked)
    assert {outcome.request.id for outcome in verdict.outcomes} == revoked
    assert all(outcome.state is State.CANCELLED for outcome in verdict.outcomes)
    kept = [one for run in verdict.runs for one in run.requests]
    values = np.concatenate([run.outputs["y"] for run in verdict.runs]) if verdict.runs else np.array([])
    assert [one.id for one in kept] == [one.id for one in requests if one.id not in revoked]
    assert values.tolist() == [2 * value for one in kept for value in one.inputs["x"].tolist()]


def test_one_culprit_among_many_costs_few_runs() -> None:
    model = Doubler()
    verdict = runner(model, 64).run([request([n if n != 37 else -1]) for n in range(64)])
    assert (sum(len(run.requests) for run in verdict.runs), len(verdict.outcomes)) == (63, 1)
    assert len(model.sizes) <= 2 * 6 + 1


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "missing"),
        ({"y": np.zeros(2, np.float32)}, "for 3 rows"),
        ({"y": np.float32(0).reshape(())}, "for 3 rows"),
        ({"y": np.zeros((3, 2), np.float32)}, r"\[3, 2\] for 3 rows, but model.toml says y FP32 \[rows\]"),
        ({"y": np.zeros(3, np.float64)}, "model.toml says FP32"),
    ],
)
def test_a_model_that_breaks_its_contract_is_caught(outputs: Tensors, words: str) -> None:
    class Liar(Doubler):
        def infer(self, inputs: Tensors) -> Tensors:
            return outputs

    with pytest.raises(BrokenContract, match=words):
        CheckedModel(Liar(), SIGNATURE).infer({"x": np.zeros(3, np.float32)}, max_rows=8)


class Stacked:
    """Takes rows at axis 1 and a factor; returns rows at axis 2, how many rows ran, and whether it was too many."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.sizes: list[int] = []

    def infer(self, inputs: Tensors) -> Tensors:
        state = inputs["state"]
        self.sizes.append(state.shape[1])
        if state.shape[1] > self.most:
            raise MemoryError
        return {"next": np.moveaxis(state, 1, 2) * inputs["factor"], "table": np.arange(4, dtype=np.float32)}

    def close(self) -> None:
        pass


STACKED = Signature(
    inputs=(
        TensorSpec(name="state", datatype="FP32", shape=(2, 3), rows_at=1),
        TensorSpec(name="factor", datatype="FP32", per_request=True),
    ),
    outputs=(
        TensorSpec(name="next", datatype="FP32", shape=(2, 3), rows_at=2),
        TensorSpec(name="table", datatype="FP32", shape=(4,), per_request=True),
    ),
)


def stacked_request(rows: int, start: int = 0) -> InferenceRequest:
    values = np.arange(start, start + 6 * rows, dtype=np.float32).reshape(2, rows, 3)
    return made_request({"state": values, "factor": np.array(2, np.float32)}, rows)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 9))
def test_rows_at_any_axis_come_back_to_their_request_whatever_was_cut(
    counts: list[int], max_rows: int, most: int
) -> None:
    requests = [stacked_request(rows, 100 * number) for number, rows in enumerate(counts)]
    verdict = Runner(CheckedModel(Stacked(most), STACKED), max_rows).run(requests)
    assert (verdict.outcomes, verdict.transient_failures) == ([], [])
    for run in verdict.runs:
        for one, piece in zip(run.requests, run.pieces(), strict=True):
            np.testing.assert_array_equal(piece["next"], np.moveaxis(one.inputs["state"], 1, 2) * 2)
            assert piece["table"].tolist() == [0, 1, 2, 3]
    assert sum(len(run.requests) for run in verdict.runs) == len(requests)


def test_requests_of_dependent_rows_run_whole_and_alone() -> None:
    model = Stacked()
    served = CheckedModel(model, STACKED, independent_rows=False)
    verdict = Runner(served, max_rows=2).run([stacked_request(rows) for rows in (5, 1, 3)])
    assert model.sizes == [5, 1, 3]
    assert [run.rows for run in verdict.runs] == [[5], [1], [3]]


def test_a_whole_request_for_which_memory_lacks_is_tried_once_and_put_off() -> None:
    model = Stacked(most=2)
    requests = [stacked_request(5), stacked_request(2)]
    verdict = Runner(CheckedModel(model, STACKED, independent_rows=False), max_rows=8).run(requests)
    assert model.sizes == [5, 2]
    assert [one.id for one, _ in verdict.transient_failures] == [requests[0].id]
    assert verdict.too_many_rows is None


def test_a_request_that_runs_alone_gets_outputs_of_any_size_but_of_its_datatype() -> None:
    class Counter(Doubler):
        def infer(self, inputs: Tensors) -> Tensors:
            return {"y": np.flatnonzero(inputs["x"]).astype(np.float32)}

    alone = CheckedModel(Counter(), SIGNATURE, independent_rows=False)
    x = np.array([0, 1, 2, 0], np.float32)
    assert alone.infer({"x": x}, max_rows=64)["y"].tolist() == [1, 2]
    with pytest.raises(BrokenContract, match=r"\[2\] for 4 rows"):
        CheckedModel(Counter(), SIGNATURE).infer({"x": x}, max_rows=64)


LENGTHS = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1,), symbols=("len",)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1,), symbols=("len",)),),
)


def test_an_output_of_another_length_than_its_input_breaks_the_contract() -> None:
    class Shortened(Doubler):
        def infer(self, inputs: Tensors) -> Tensors:
            return {"y": inputs["x"][:, 1:]}

    with pytest.raises(BrokenContract, match="'len' must be the same everywhere, but it is 4 in 'x' and 3 in 'y'"):
        CheckedModel(Shortened(), LENGTHS).infer({"x": np.zeros((2, 4), np.float32)}, max_rows=8)
