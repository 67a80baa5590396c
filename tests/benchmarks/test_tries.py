"""The sweeps of the online benchmark: longer tries, repeats on a busy machine, the best of each kind."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def rate(parts: ModuleType, per_s: float, requests: int = 10_000, others_cpus: float = 0.0) -> Any:
    return parts.measure.Rate(requests, per_s, 0.0, 0.0, 0.0, 0.0, others_cpus)


def rates_of(parts: ModuleType, run: Callable[[str, int], Any], candidates: list[str], requests: int = 10_000) -> Any:
    return parts.tries.Tries(parts.plan.FULL, requests, lambda line: None).rates(candidates, run, "a side")


def test_each_candidate_is_tried_twice_in_turn_and_counts_by_its_better_try(parts: ModuleType) -> None:
    order = []
    speeds = iter([100.0, 70.0, 90.0, 80.0])

    def run(candidate: str, count: int) -> Any:
        order.append(candidate)
        return rate(parts, next(speeds), count)

    assert rates_of(parts, run, ["a", "b"]) == {"a": 100.0, "b": 80.0}
    assert order == ["a", "b", "a", "b"]


def test_a_try_on_a_busy_machine_is_repeated_until_a_quiet_one(parts: ModuleType) -> None:
    tries = iter([(50.0, 1.0), (60.0, 0.31), (90.0, 0.3), (40.0, 0.0)])

    def run(candidate: str, count: int) -> Any:
        per_s, others_cpus = next(tries)
        return rate(parts, per_s, count, others_cpus)

    assert rates_of(parts, run, ["a"]) == {"a": 90.0}
    assert next(tries, None) is None


def test_a_machine_that_never_rests_ends_the_repeats_after_three(parts: ModuleType) -> None:
    runs = []

    def run(candidate: str, count: int) -> Any:
        runs.append(count)
        return rate(parts, 50.0, count, others_cpus=2.0)

    assert rates_of(parts, run, ["a"]) == {"a": 50.0}
    assert len(runs) == parts.plan.FULL.passes * (1 + 3)


def test_a_try_that_is_too_short_does_not_count_and_gets_more_requests(parts: ModuleType) -> None:
    seen: dict[str, list[int]] = {"fast": [], "slow": []}

    def run(candidate: str, count: int) -> Any:
        seen[candidate].append(count)
        if candidate == "slow":
            return rate(parts, 500.0, count)
        # What is too short to be measured looks faster than it is.
        return rate(parts, 10_000.0 if count >= 15_000 else 50_000.0, count)

    assert rates_of(parts, run, ["fast", "slow"], requests=1_000) == {"fast": 10_000.0, "slow": 500.0}
    assert seen["fast"][0] == 1_000
    assert sorted(seen["fast"]) == seen["fast"]
    assert set(seen["slow"]) == {1_000}


def test_the_best_of_each_kind_comes_fastest_first(parts: ModuleType) -> None:
    found = {("solo", 1): 5.0, ("solo", 64): 7.0, ("threads", 1): 9.0, ("threads", 64): 2.0}
    assert parts.tries.best_of_each(found, lambda candidate: candidate[0]) == [("threads", 1), ("solo", 64)]


def test_ratios_are_medians_over_rounds_against_each_rival(parts: ModuleType) -> None:
    rounds = {
        "celery": [rate(parts, 10.0), rate(parts, 20.0), rate(parts, 10.0)],
        "celery_two_workers": [rate(parts, 20.0)] * 3,
        "headrace": [rate(parts, 100.0), rate(parts, 400.0), rate(parts, 300.0)],
    }
    assert parts.bench.ratios(rounds) == {"ratio": 20.0, "ratio_two_workers": 15.0}
    at_64 = parts.bench.ratios({**rounds, "headrace_64": [rate(parts, 50.0)] * 3})["ratio_at_64"]
    assert at_64 == 5.0
