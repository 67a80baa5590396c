"""The size of batches that pays: where the curve of throughputs bends, alone and in a worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.lifecycle.packages.batch_sizes import ENOUGH, WORKER_S, knee_of, paying_rows

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: Seconds of a run by its rows → where the curve bends.
CURVES: dict[str, tuple[Callable[[int], float], int]] = {
    # 64/(64+8) is above nine tenths of 256/(256+8), 32/(32+8) is not.
    "a line": (lambda rows: 0.008 + 0.001 * rows, 64),
    "a line with a small fixed part": (lambda rows: 0.0001 + 0.001 * rows, 1),
    "only a fixed part": (lambda _: 0.01, 256),
    "only a part per row": (lambda rows: 0.001 * rows, 1),
    "saturating at 16 rows": (lambda rows: max(0.016, 0.001 * rows), 16),
    "steps of 32 rows": (lambda rows: 0.01 * -(-rows // 32), 32),
    "worse with more rows": (lambda rows: 0.001 * rows**1.5, 1),
    "best at 8 rows, then worse": (lambda rows: 0.004 + 0.001 * rows if rows <= 8 else 0.003 * rows, 8),
}


def curve(seconds: Callable[[int], float]) -> list[tuple[int, float]]:
    return [(rows, seconds(rows)) for rows in SIZES]


@pytest.mark.parametrize("name", CURVES)
def test_the_knee_is_where_more_rows_stop_to_pay(name: str) -> None:
    seconds, knee = CURVES[name]
    assert knee_of(curve(seconds)) == knee


@pytest.mark.parametrize("name", CURVES)
def test_noise_of_two_percent_moves_the_knee_by_one_size_at_most(name: str) -> None:
    seconds, knee = CURVES[name]
    noise = [1.02, 0.98, 1.0, 0.99, 1.02, 1.01, 0.98, 1.02, 1.0]
    noisy = [(rows, took * factor) for (rows, took), factor in zip(curve(seconds), noise, strict=True)]
    assert abs(SIZES.index(knee_of(noisy)) - SIZES.index(knee)) <= 1


@given(st.dictionaries(st.integers(1, 1024), st.floats(1e-6, 100), min_size=1, max_size=12))
def test_the_knee_is_the_first_size_of_nearly_the_best_throughput(taken: dict[int, float]) -> None:
    found = knee_of(list(taken.items()))
    best = max(rows / seconds for rows, seconds in taken.items())
    assert found / taken[found] >= ENOUGH * best
    assert all(rows / seconds < ENOUGH * best for rows, seconds in taken.items() if rows < found)


@given(st.dictionaries(st.integers(1, 1024), st.floats(1e-6, 100), min_size=1, max_size=12))
def test_what_pays_in_a_worker_is_the_knee_with_its_own_time_and_no_smaller(taken: dict[int, float]) -> None:
    points = list(taken.items())
    assert paying_rows(points) == knee_of([(rows, seconds + WORKER_S) for rows, seconds in points])


def test_a_tiny_model_pays_with_many_rows_and_a_slow_one_with_its_own_knee() -> None:
    assert paying_rows(curve(lambda rows: 1e-5 * rows)) == 256
    assert paying_rows(curve(lambda rows: 0.1 * rows)) == 1
