"""Batches of a model on a server, without the server: cut, refused, put off, and bounded by deadlines."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.example_request import made_request

from headrace.contracts import InferenceFailed, InputRefused, OutputMismatch, PackageError, Signature, State, TensorSpec
from headrace.runtimes.base import Computed, TransientFailure
from headrace.runtimes.remote.base import BadAnswer, BatchTooLarge, Refused, ServerAway, ServerBusy, ServerFailed
from headrace.workers.execution.layers.backoff import LEAST_WAIT_S, LOOK_S, MOST_WAIT_S, SPREAD, defer
from headrace.workers.execution.runner import Runner, latest_deadline
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.batch_limit import FULL_BATCHES, BatchLimit
from headrace.workers.models.checked_model import CheckedModel
from headrace.workers.request import InferenceRequest

SIGNATURE = Signature(inputs=(TensorSpec(name="x", datatype="FP32"),), outputs=(TensorSpec(name="y", datatype="FP32"),))


class Served:
    """Doubles, with at most `most_rows` a batch; says so, or not. error: raised by batches that hold a negative.

    vague: refuses larger batches in words that nobody knows.
    """

    def __init__(
        self, most_rows: int = 100, *, says: bool = True, error: Exception | None = None, vague: bool = False
    ) -> None:
        self.most_rows, self.says, self.error, self.vague = most_rows, says, error, vague
        self.sizes: list[int] = []
        self.deadlines: list[float | None] = []

    def compute(self, inputs: dict[str, Any], deadline: float | None) -> Computed:
        self.sizes.append(len(inputs["x"]))
        self.deadlines.append(deadline)
        if len(inputs["x"]) > self.most_rows:
            if self.vague:
                raise Refused("error 17")
            raise BatchTooLarge("too large", self.most_rows if self.says else 0)
        if self.error is not None and (inputs["x"] < 0).any():
            raise self.error
        return Computed({"y": inputs["x"] * 2}, "7")

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.compute(inputs, None).outputs

    def close(self) -> None:
        pass


def request(values: list[float], deadline: float | None = None) -> InferenceRequest:
    made = made_request({"x": np.array(values, np.float32)}, len(values))
    made.deadline = deadline
    return made


def run(model: Served, requests: list[InferenceRequest], max_rows: int = 64, **options: Any) -> Verdict:
    return Runner(CheckedModel(model, SIGNATURE, **options), max_rows).run(requests)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 20), st.booleans())
def test_a_batch_too_large_is_cut_until_it_fits_and_every_request_has_its_rows(
    sizes: list[int], most: int, says: bool
) -> None:
    model = Served(most, says=says)
    requests = [request([float(number)] * rows) for number, rows in enumerate(sizes)]
    verdict = run(model, requests)
    found = {}
    for one in verdict.runs:
        assert one.served_version == "7"
        for each, piece in zip(one.requests, one.pieces(), strict=True):
            found[each.id] = piece["y"].tolist()
    assert verdict.outcomes == []
    assert found == {one.id: [2.0 * number] * one.rows for number, one in enumerate(requests)}
    refused = [size for size in model.sizes if size > most]
    assert not says or len(refused) <= 1
    if refused:
        assert (verdict.most_rows if says else verdict.too_many_rows) is not None
        assert not verdict.is_clean


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 20), st.integers(1, 64), st.data())
def test_a_batch_too_large_is_found_out_whatever_the_words_and_bad_requests_fail_alone(
    sizes: list[int], most: int, max_rows: int, data: st.DataObject
) -> None:
    model = Served(most, vague=True, error=Refused("no negatives"))
    bad = data.draw(st.sets(st.integers(0, len(sizes) - 1)))
    requests = [request([float(number)] * rows) for number, rows in enumerate(sizes)]
    for number in bad:
        requests[number].inputs["x"][data.draw(st.integers(0, sizes[number] - 1))] = -1
    verdict = run(model, requests, max_rows)
    found = {}
    for one in verdict.runs:
        for each, piece in zip(one.requests, one.pieces(), strict=True):
            found[each.id] = piece["y"].tolist()
    assert found == {one.id: [2.0 * at] * one.rows for at, one in enumerate(requests) if at not in bad}
    assert {outcome.request.id for outcome in verdict.outcomes} == {requests[at].id for at in bad}
    if verdict.too_many_rows is not None:
        assert verdict.too_many_rows > most, "no size is called too large that the server takes"


def test_the_size_that_a_server_takes_is_learned_from_halves_that_succeed() -> None:
    model = Served(4, vague=True)
    verdict = run(model, [request([1.0]) for _ in range(16)], 16)
    assert (verdict.outcomes, verdict.too_many_rows) == ([], 8)
    assert not verdict.is_clean
    whole = run(model, [request([1.0] * 30)], 8)
    assert (whole.outcomes, whole.too_many_rows) == ([], 8)


@pytest.mark.parametrize(("rows", "at", "max_rows"), [(64, 63, 64), (64, 0, 64), (1000, 999, 100), (30, 17, 8)])
def test_a_bad_row_among_many_costs_few_runs_and_lowers_no_limit(rows: int, at: int, max_rows: int) -> None:
    model = Served(error=Refused("no negatives"))
    values = [1.0] * rows
    values[at] = -1.0
    verdict = run(model, [request(values)], max_rows)
    assert isinstance(verdict.outcomes[0].error, InputRefused)
    assert verdict.too_many_rows is None
    first = at // max_rows + 1
    assert len(model.sizes) <= first + 2 * first + 2 * np.log2(max_rows)


def test_what_a_server_fails_on_says_nothing_of_the_size_of_batches() -> None:
    class Flickering(Served):
        def compute(self, inputs: dict[str, Any], deadline: float | None) -> Computed:
            if not self.sizes:
                self.sizes.append(len(inputs["x"]))
                raise ServerFailed("error 2")
            return super().compute(inputs, deadline)

    verdict = run(Flickering(), [request([1.0]) for _ in range(16)])
    assert (verdict.outcomes, verdict.too_many_rows) == ([], None)
    whole = run(Flickering(), [request([1.0] * 16)])
    assert type(whole.outcomes[0].error) is InferenceFailed


def test_rows_that_depend_on_each_other_are_not_taken_apart() -> None:
    model = Served(error=Refused("no negatives"))
    verdict = run(model, [request([1.0, -1.0])], independent_rows=False)
    assert (len(verdict.outcomes), model.sizes) == (1, [2])


def test_a_server_that_goes_away_in_the_middle_of_pieces_makes_the_request_wait() -> None:
    class Leaving(Served):
        def compute(self, inputs: dict[str, Any], deadline: float | None) -> Computed:
            if len(self.sizes) == 2:
                raise ServerAway("killed")
            return super().compute(inputs, deadline)

    verdict = run(Leaving(4, vague=True), [request([1.0] * 8)])
    assert (verdict.runs, verdict.outcomes) == ([], [])
    assert len(verdict.transient_failures) == 1


def test_a_request_that_is_too_large_by_itself_fails_by_name() -> None:
    verdict = run(Served(0, says=False), [request([1.0])])
    (outcome,) = verdict.outcomes
    assert isinstance(outcome.error, InputRefused)
    assert "takes no request of this size: too large" in outcome.error.message
    whole = run(Served(2), [request([1.0] * 3)], independent_rows=False)
    assert isinstance(whole.outcomes[0].error, InputRefused)


def test_a_server_that_names_more_rows_than_it_refused_is_not_believed() -> None:
    class Liar(Served):
        def compute(self, inputs: dict[str, Any], deadline: float | None) -> Computed:
            self.sizes.append(len(inputs["x"]))
            raise BatchTooLarge("too large", 1000)

    model = Liar()
    verdict = run(model, [request([1.0]) for _ in range(16)])
    assert len(verdict.outcomes) == 16
    assert len(model.sizes) < 40


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Refused("out of range"), InputRefused, "the model server refuses this input: out of range"),
        (ServerFailed("error 2"), InferenceFailed, "the model server failed on this input: error 2"),
        (BadAnswer("0 rows for 1"), OutputMismatch, "0 rows for 1"),
    ],
)
def test_what_one_request_is_to_blame_for_fails_it_alone(error: Exception, kind: type, words: str) -> None:
    requests = [request([float(number)]) for number in (1, 2, -3, 4)]
    verdict = run(Served(error=error), requests)
    (outcome,) = verdict.outcomes
    assert outcome.request is requests[2]
    assert type(outcome.error) is kind
    assert words in outcome.error.message
    assert sum(len(one.requests) for one in verdict.runs) == 3


def test_another_model_fails_all_at_once() -> None:
    model = Served(error=PackageError("input x is FP64"))
    verdict = run(model, [request([-1.0]) for _ in range(8)])
    assert len(model.sizes) == 1
    assert {outcome.error.message for outcome in verdict.outcomes} == {"input x is FP64"}


def test_the_latest_deadline_of_a_batch_bounds_its_run() -> None:
    assert latest_deadline([request([1.0], 5.0), request([1.0], 9.0)]) == 9.0
    assert latest_deadline([request([1.0], 5.0), request([1.0])]) is None
    model = Served()
    run(model, [request([1.0], 5.0), request([1.0], 9.0)], max_rows=1)
    assert model.deadlines == [9.0, 9.0]


class Away:
    """The side of a served model that is put off."""

    signature = SIGNATURE

    def __init__(self, away_s: float = 0.0) -> None:
        self.away_s = away_s
        self.seconds = 0.0

    def put_off(self, now: float, seconds: float) -> float:
        self.seconds = seconds
        return self.away_s


def put_off(error: Exception, *requests: InferenceRequest, away_s: float = 0.0) -> tuple[Verdict, Away]:
    served = Away(away_s)
    verdict = Verdict([], [], [(one, error) for one in requests])
    defer(served, verdict, 0)  # type: ignore[arg-type]
    return verdict, served


@pytest.mark.parametrize("error", [ServerAway("killed", 3.0), ServerBusy("full", 3.0)])
def test_waiting_for_a_server_counts_no_retry_however_often(error: Exception) -> None:
    patient = request([1.0])
    patient.retries = 100
    verdict, served = put_off(error, patient)
    (deferred,) = verdict.deferred
    assert not deferred.is_retry
    assert 3.0 <= deferred.delay_s <= 3.0 * (1 + SPREAD)
    assert verdict.outcomes == []
    assert served.seconds == LOOK_S


def test_nobody_waits_beyond_a_deadline_and_one_that_is_over_ends_the_request() -> None:
    now = time.monotonic()
    soon, over = request([1.0], now + 0.5), request([1.0], now - 0.1)
    verdict, _ = put_off(ServerAway("killed", 3.0), soon, over)
    (deferred,) = verdict.deferred
    assert deferred.request is soon
    assert deferred.delay_s <= 0.5
    (outcome,) = verdict.outcomes
    assert (outcome.request, outcome.state) == (over, State.EXPIRED)


@pytest.mark.parametrize(("away_s", "least_s"), [(0.0, LEAST_WAIT_S), (8.0, 8.0), (1e6, MOST_WAIT_S)])
def test_what_was_looked_at_waits_as_long_as_the_server_has_been_away(away_s: float, least_s: float) -> None:
    verdict, _ = put_off(ServerAway("killed"), request([1.0]), away_s=away_s)
    assert least_s <= verdict.deferred[0].delay_s <= least_s * (1 + SPREAD)


def test_a_run_that_took_too_long_counts_as_a_retry() -> None:
    verdict, served = put_off(TransientFailure("too long"), request([1.0]))
    assert [outcome.state for outcome in verdict.outcomes] == [State.FAILED]
    assert served.seconds == 0.0


def test_a_limit_that_the_server_named_is_kept_and_remembered() -> None:
    remembered: list[int | None] = []
    limit = BatchLimit(64, None, remembered.append)
    limit.refused_above(32)
    assert (limit.rows, remembered) == (32, [32])
    for _ in range(3 * FULL_BATCHES):
        assert not limit.succeeded_with(32)
    assert limit.rows == 32
    limit.refused_above(40)
    assert limit.rows == 32
    limit.refused_above(0)
    assert limit.rows == 1


def test_a_limit_of_an_earlier_process_is_tried_again_from_below() -> None:
    limit = BatchLimit(64, 32, lambda _: None)
    for _ in range(FULL_BATCHES):
        limit.succeeded_with(32)
    assert limit.rows == 35
    limit.refused_above(32)
    assert limit.rows == 32
