"""The bound on rows a second: kept from the first row on, whatever the sizes of groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.shards.group_size import GroupSize
from headrace.bulk.shards.throttle import BURST_S, Throttle, most_rows

rates = st.floats(0.01, 1e6)


def test_the_first_group_waits_for_the_time_that_its_rows_take() -> None:
    throttle = Throttle(10.0)
    assert throttle.goes_at(10.0, 50, 100.0) == 10.5


def test_nothing_waits_without_a_bound() -> None:
    throttle = Throttle(10.0)
    assert throttle.goes_at(10.0, 1_000_000, 0.0) == 10.0


def test_time_that_reading_took_is_not_waited_for_again() -> None:
    throttle = Throttle(0.0)
    assert throttle.goes_at(0.4, 50, 100.0) == 0.5
    assert throttle.goes_at(2.0, 50, 100.0) == 2.0


def test_a_bound_that_changes_while_a_group_waits_holds_at_once() -> None:
    throttle = Throttle(0.0)
    assert throttle.goes_at(0.1, 100, 1.0) == 100.0
    assert throttle.goes_at(0.1, 100, 200.0) == 0.5
    assert throttle.goes_at(0.1, 100, 0.0) == 0.1


@given(rates, st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), min_size=1))
def test_no_shard_is_ever_ahead_of_its_bound(rate: float, groups: list[tuple[int, float]]) -> None:
    throttle, now, rows = Throttle(5.0), 5.0, 0
    for count, busy_s in groups:
        now = throttle.goes_at(now, count, rate)
        throttle.went(now)
        rows += count
        assert rows <= (now - 5.0) * rate + 1e-6 * rows + 1e-3 * rate
        now += busy_s


@given(st.integers(1, 10_000), st.integers(1, 256), rates)
def test_groups_are_whole_batches_of_half_a_second_at_most_or_one_batch(batches: int, batch: int, rate: float) -> None:
    rows = most_rows(batches * batch, batch, rate)
    assert rows % batch == 0
    assert rows == batch or rows <= min(batches * batch, rate * BURST_S)


@pytest.mark.parametrize(("rate", "rows"), [(0.0, 800), (1000.0, 496), (100.0, 48), (1.0, 8)])
def test_a_group_is_bounded_however_fast_the_model_is(rate: float, rows: int) -> None:
    size = GroupSize(8, 8_000, lambda: rate)
    assert size(0) == 8
    size.learn(8, 0.005)
    assert size(8) == rows


def test_groups_that_results_depend_on_stay_as_they_are() -> None:
    size = GroupSize(8, 256, lambda: 1.0, fixed=True)
    assert size(0) == 256
