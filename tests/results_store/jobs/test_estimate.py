from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.results_store.jobs.estimate import Ended, remaining_s

amounts = st.floats(1e-3, 1e9)
shards = st.lists(st.builds(Ended, amounts, st.floats(1e-3, 1e5)), min_size=1, max_size=64)


def test_nothing_tells_the_time_before_a_shard_has_ended_or_while_nobody_works() -> None:
    assert remaining_s(10, [], 1) is None
    assert remaining_s(10, [Ended(0, 1), Ended(1, 0)], 1) is None
    assert remaining_s(10, [Ended(1, 1)], 0) is None


def test_what_is_done_takes_no_time() -> None:
    assert remaining_s(0, [Ended(1, 1)], 4) == (0, 0)


def test_even_shards_give_a_narrow_range_around_the_pace() -> None:
    found = remaining_s(1000, [Ended(10, 2)] * 64, 4)
    assert found is not None
    low, high = found
    assert 49 < low < 50 < high < 53


def test_uneven_or_few_shards_give_a_wide_range() -> None:
    even = remaining_s(1000, [Ended(10, 2)] * 8, 1)
    uneven = remaining_s(1000, [Ended(10, 0.1), Ended(10, 3.9)] * 4, 1)
    few = remaining_s(1000, [Ended(10, 2)], 1)
    assert even is not None
    assert uneven is not None
    assert few is not None
    assert uneven[1] - uneven[0] > 2 * (even[1] - even[0])
    assert few[1] - few[0] > 2 * (even[1] - even[0])


@given(amounts, shards, st.integers(1, 1000))
def test_the_range_holds_the_pace_so_far(work: float, ended: list[Ended], workers: int) -> None:
    found = remaining_s(work, ended, workers)
    assert found is not None
    low, high = found
    likely = work * sum(each.seconds for each in ended) / sum(each.work for each in ended) / workers
    assert 0 <= low <= likely * (1 + 1e-9)
    assert likely * (1 - 1e-9) <= high


@given(amounts, shards)
def test_more_workers_take_no_longer(work: float, ended: list[Ended]) -> None:
    one, two = remaining_s(work, ended, 1), remaining_s(work, ended, 2)
    assert one is not None
    assert two is not None
    assert two[0] <= one[0]
    assert two[1] <= one[1]
