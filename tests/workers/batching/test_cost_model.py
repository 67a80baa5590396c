"""The learned run time: right, robust, and never negative."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.workers.batching import CostModel

FIXED_S = 0.004
ROW_S = 0.0002


def observe_noisy(cost: CostModel, runs: int, *, scale: float = 1.0, noise: float = 0.05, seed: int = 1) -> None:
    chance = random.Random(seed)
    for _ in range(runs):
        rows = chance.randint(1, 64)
        cost.observe(rows, scale * (FIXED_S + ROW_S * rows) * chance.gauss(1, noise))


def is_right(cost: CostModel, tolerance: float = 0.1, scale: float = 1.0) -> bool:
    return cost.seconds_fixed == pytest.approx(
        scale * FIXED_S, rel=tolerance
    ) and cost.seconds_per_row == pytest.approx(scale * ROW_S, rel=tolerance)


def test_it_recovers_both_parameters_from_noisy_runs() -> None:
    cost = CostModel()
    observe_noisy(cost, 200)
    assert cost.confident
    assert is_right(cost)


def test_it_knows_nothing_at_first() -> None:
    cost = CostModel()
    assert not cost.confident
    assert cost.predict(10) == 0


def test_start_values_predict_but_give_no_confidence() -> None:
    cost = CostModel(FIXED_S, ROW_S)
    assert cost.predict(10) == pytest.approx(FIXED_S + 10 * ROW_S)
    assert not cost.confident


def test_no_rows_cost_nothing() -> None:
    assert CostModel(FIXED_S, ROW_S).predict(0) == 0


@pytest.mark.parametrize("before", [0, 3, 200])
def test_a_run_a_hundred_times_too_slow_hardly_matters(before: int) -> None:
    cost = CostModel()
    observe_noisy(cost, before)
    cost.observe(16, 100 * (FIXED_S + 16 * ROW_S))
    observe_noisy(cost, 40, seed=2)
    assert is_right(cost, 0.2)


def test_an_outlier_moves_a_settled_model_by_less_than_a_percent() -> None:
    cost = CostModel()
    observe_noisy(cost, 200)
    before = cost.predict(16)
    cost.observe(16, 100 * before)
    assert cost.predict(16) == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("scale", [3.0, 1 / 3])
def test_it_follows_a_device_that_changes_its_pace(scale: float) -> None:
    cost = CostModel()
    observe_noisy(cost, 200)
    observe_noisy(cost, 300, scale=scale)
    assert is_right(cost, 0.15, scale)


def test_one_size_only_gives_no_confidence_and_counts_as_per_row() -> None:
    cost = CostModel()
    for _ in range(100):
        cost.observe(8, 0.008)
    assert not cost.confident
    assert cost.seconds_fixed == 0
    assert cost.seconds_per_row == pytest.approx(0.001)


def test_it_keeps_what_it_learned_while_only_one_size_runs() -> None:
    cost = CostModel()
    observe_noisy(cost, 200)
    for _ in range(2000):
        cost.observe(64, FIXED_S + 64 * ROW_S)
    assert cost.confident
    assert is_right(cost)


def test_it_learns_the_pace_while_only_one_size_runs() -> None:
    cost = CostModel()
    observe_noisy(cost, 200)
    for _ in range(400):
        cost.observe(64, 2 * (FIXED_S + 64 * ROW_S))
    assert cost.predict(64) == pytest.approx(2 * (FIXED_S + 64 * ROW_S), rel=0.05)


@pytest.mark.parametrize(
    ("rows", "seconds"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -1.0), (4, float("nan")), (4, float("inf"))]
)
def test_what_cannot_be_a_run_is_ignored(rows: int, seconds: float) -> None:
    cost = CostModel()
    cost.observe(rows, seconds)
    assert (cost.seconds_fixed, cost.seconds_per_row) == (0, 0)


def test_runs_that_grow_faster_than_their_rows_give_no_negative_fixed_part() -> None:
    cost = CostModel()
    for rows in [*range(1, 65)] * 4:
        cost.observe(rows, 1e-5 * rows * rows)
        assert cost.seconds_fixed >= 0


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-7, 1e4)), max_size=80))
def test_it_is_never_negative_and_always_finite(runs: list[tuple[int, float]]) -> None:
    cost = CostModel()
    for rows, seconds in runs:
        cost.observe(rows, seconds)
        assert 0 <= cost.seconds_fixed < float("inf")
        assert 0 <= cost.seconds_per_row < float("inf")
        assert cost.predict(1) > 0


@given(st.lists(st.integers(1, 64), min_size=20, max_size=60).filter(lambda sizes: len(set(sizes)) > 4))
def test_exact_runs_are_predicted_exactly(sizes: list[int]) -> None:
    cost = CostModel()
    for rows in sizes:
        cost.observe(rows, FIXED_S + ROW_S * rows)
    if cost.confident:
        assert is_right(cost, 1e-6)
