"""What a served makes of a profile: figures from a place like this one decide at once, others are a first guess."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import ModelDirectory, ModelPackage, PackageError
from headrace.contracts.package.manifest import BatchingAdvice, write_manifest
from headrace.contracts.package.processor import place_of
from headrace.workers.batching import BatchPolicy, CostModel, Item, MicroBatcher
from headrace.workers.models.served_model import ServedModel, profiled_otherwise, starting_cost

PLACE = "AMD EPYC, cpu"
FIXED_S = 0.020
ROW_S = 0.0001

PROFILED = BatchingAdvice(seconds_fixed=FIXED_S, seconds_per_row=ROW_S, threads=2, measured_on=PLACE)


def test_figures_of_the_same_place_and_threads_are_trusted_at_once() -> None:
    cost = starting_cost(PROFILED, place=PLACE, threads=2)
    assert cost.confident
    assert cost.predict(10) == pytest.approx(FIXED_S + 10 * ROW_S)


@pytest.mark.parametrize(
    ("advice", "place", "threads"),
    [
        (PROFILED, PLACE, 1),
        (PROFILED, PLACE, 0),
        (PROFILED, "AMD EPYC, cuda", 2),
        (PROFILED, "Intel Xeon, cpu", 2),
        (msgspec.structs.replace(PROFILED, threads=0), PLACE, 0),
        (msgspec.structs.replace(PROFILED, measured_on=""), PLACE, 2),
    ],
)
def test_figures_of_another_place_are_only_the_first_predictions(
    advice: BatchingAdvice, place: str, threads: int
) -> None:
    cost = starting_cost(advice, place=place, threads=threads)
    assert not cost.confident
    assert cost.predict(10) == pytest.approx(FIXED_S + 10 * ROW_S)


def test_without_figures_everything_is_learned() -> None:
    for advice in (BatchingAdvice(), BatchingAdvice(threads=2, measured_on=PLACE)):
        cost = starting_cost(advice, place=PLACE, threads=2)
        assert not cost.confident
        assert cost.predict(10) == 0


def test_a_profiled_model_waits_for_company_from_its_second_burst_on_without_a_run() -> None:
    cost = starting_cost(PROFILED, place=PLACE, threads=2)
    batcher = MicroBatcher[int](BatchPolicy(max_rows=16, max_wait_s=0.004), cost)
    # What comes after the first of a burst has to be seen some times; the cost needn't.
    for burst in range(20):
        now = float(burst)
        batcher.put(Item(0, 1, 0, None, now))
        batcher.take(now)
        batcher.put_many([Item(0, 1, 0, None, now + 0.0001 * follower) for follower in range(1, 10)])
        while batcher.take(now + 0.5, drain=True):
            pass
    batcher.put(Item(0, 1, 0, None, 20.0))
    assert batcher.take(20.0) is None


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_runs_correct_a_profile_that_is_off(factor: float) -> None:
    cost = CostModel.measured(FIXED_S, ROW_S)
    chance = random.Random(1)
    for _ in range(300):
        rows = chance.randint(1, 64)
        cost.observe(rows, factor * (FIXED_S + ROW_S * rows) * chance.gauss(1, 0.05))
    for rows in (1, 64):
        assert cost.predict(rows) == pytest.approx(factor * (FIXED_S + ROW_S * rows), rel=0.15)


def test_one_slow_first_run_hardly_moves_a_profile() -> None:
    cost = CostModel.measured(FIXED_S, ROW_S)
    cost.observe(8, 100 * cost.predict(8))
    assert cost.predict(8) == pytest.approx(FIXED_S + 8 * ROW_S, rel=0.05)


@given(st.floats(0, 1e308), st.floats(0, 1e308), st.lists(st.tuples(st.integers(1, 1000), st.floats(1e-7, 1e4))))
def test_no_figures_a_package_may_hold_break_the_cost_model(
    fixed: float, per_row: float, runs: list[tuple[int, float]]
) -> None:
    cost = CostModel.measured(fixed, per_row)
    for rows, seconds in runs:
        cost.observe(rows, seconds)
        assert 0 < cost.predict(1) < float("inf")


@pytest.mark.parametrize(
    ("threads", "place", "said"),
    [
        (2, PLACE, ""),
        (1, PLACE, "threads=1 profiled_threads=2"),
        (2, "Intel Xeon, cpu", "place='Intel Xeon, cpu' profiled_place='AMD EPYC, cpu'"),
    ],
)
def test_the_difference_to_the_profile_is_told(threads: int, place: str, said: str) -> None:
    assert profiled_otherwise(PROFILED, place=place, threads=threads) == said
    assert profiled_otherwise(BatchingAdvice(), place=place, threads=threads) == ""


def profiled(models: Path, **figures: object) -> ModelPackage:
    package = ModelDirectory(models).get("double")
    advice = msgspec.structs.replace(package.manifest.batching, seconds_fixed=FIXED_S, **figures)
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, batching=advice))
    return ModelDirectory(models).get("double")


def test_a_lane_of_a_profiled_package_is_confident(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = ServedModel(profiled(models, threads=1, measured_on=place_of("cpu")), device="cpu", threads=1)
    with caplog.at_level(logging.INFO):
        served.load()
    served.close()
    assert served.cost.confident
    assert "profiled" not in caplog.text


def test_a_lane_with_other_threads_says_so_and_learns(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = ServedModel(profiled(models, threads=2, measured_on=place_of("cpu")), device="cpu", threads=1)
    with caplog.at_level(logging.INFO):
        served.load()
    served.close()
    assert not served.cost.confident
    assert "profiled otherwise, so it learns its times anew: double 1 threads=1 profiled_threads=2" in caplog.text


def test_a_changed_model_keeps_the_limits_but_not_the_figures() -> None:
    advice = msgspec.structs.replace(PROFILED, max_rows=8, max_wait_ms=1.0)
    assert advice.unmeasured() == BatchingAdvice(max_rows=8, max_wait_ms=1.0)


def test_negative_threads_are_refused() -> None:
    with pytest.raises(PackageError, match="threads must be"):
        BatchingAdvice(threads=-1)
