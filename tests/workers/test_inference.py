"""Packing, running in pieces, and finding the culprit: pure, with a model made of a function."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import Signature, State, TensorSpec
from headrace.contracts.message import RequestHeader
from headrace.workers.cancellation import end_cancelled
from headrace.workers.inference import BrokenContract, Runner, infer
from headrace.workers.request import InferenceRequest

X = TensorSpec(name="x", datatype="FP32")
Y = TensorSpec(name="y", datatype="FP32")
SIGNATURE = Signature(inputs=(X,), outputs=(Y,))


class Doubler:
    """Doubles; refuses a batch with a negative number in it; notes the sizes it ran."""

    def __init__(self):
        self.sizes = []

    def infer(self, inputs):
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise ValueError("negative: secret detail")
        return {"y": inputs["x"] * 2}

    def close(self):
        pass


def request(values):
    return InferenceRequest(
        id=str(uuid.uuid4()),
        row_id=uuid.uuid4(),
        model="m",
        lane=None,
        consumer=None,
        tag="",
        header=RequestHeader(),
        inputs={"x": np.array(values, np.float32)},
        rows=len(values),
        priority=0,
        deadline=None,
        submitted_at=0.0,
        attempts=1,
        celery_result=False,
        note="",
    )


@given(st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=3), min_size=1, max_size=12), st.integers(1, 6))
def test_each_request_gets_its_own_rows_and_only_culprits_fail(values, max_rows):
    requests = [request(each) for each in values]
    verdict = Runner(Doubler(), SIGNATURE, max_rows).run(requests, 0)
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
def test_what_was_cancelled_while_it_ran_ends_so_and_its_neighbours_keep_their_rows(shapes, max_rows):
    requests = [request([float(number)] * rows) for number, (rows, _) in enumerate(shapes)]
    revoked = {one.id for one, (_, cancelled) in zip(requests, shapes, strict=True) if cancelled}
    verdict = Runner(Doubler(), SIGNATURE, max_rows).run(requests, 0)
    end_cancelled(verdict, revoked)
    assert {outcome.request.id for outcome in verdict.outcomes} == revoked
    assert all(outcome.state is State.CANCELLED for outcome in verdict.outcomes)
    kept = [one for run in verdict.runs for one in run.requests]
    values = np.concatenate([run.outputs["y"] for run in verdict.runs]) if verdict.runs else np.array([])
    assert [one.id for one in kept] == [one.id for one in requests if one.id not in revoked]
    assert values.tolist() == [2 * value for one in kept for value in one.inputs["x"].tolist()]


def test_one_culprit_among_many_costs_few_runs():
    model = Doubler()
    verdict = Runner(model, SIGNATURE, 64).run([request([n if n != 37 else -1]) for n in range(64)], 0)
    assert (sum(len(run.requests) for run in verdict.runs), len(verdict.outcomes)) == (63, 1)
    assert len(model.sizes) <= 2 * 6 + 1


def test_padding_is_run_and_cut_off():
    model = Doubler()
    outputs = infer(model, SIGNATURE, {"x": np.array([1, 2, 3], np.float32)}, max_rows=8, padded_rows=4)
    assert (model.sizes, outputs["y"].tolist()) == ([4], [2.0, 4.0, 6.0])


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "missing"),
        ({"y": np.zeros(2, np.float32)}, "for 3 rows"),
        ({"y": np.float32(0).reshape(())}, "for 3 rows"),
        ({"y": np.zeros(3, np.float64)}, "model.toml says FP32"),
    ],
)
def test_a_model_that_breaks_its_contract_is_caught(outputs, words):
    class Liar(Doubler):
        def infer(self, inputs):
            return outputs

    with pytest.raises(BrokenContract, match=words):
        infer(Liar(), SIGNATURE, {"x": np.zeros(3, np.float32)}, max_rows=8, padded_rows=0)
