"""The size of groups: short enough that a shard can be stopped soon, and batches stay where they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.bulk.shards.group_size import GROUP_S, GroupSize

paces = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 100, allow_nan=False)), max_size=20)


@given(st.integers(1, 64), st.integers(1, 128), paces)
def test_groups_are_whole_batches_and_never_more_than_the_most(
    batch_rows: int, batches: int, seen: list[tuple[int, float]]
) -> None:
    size = GroupSize(batch_rows, batch_rows * batches)
    start = 0
    for rows, seconds in seen:
        size.learn(rows, seconds)
        decided = size(start)
        size.learn(1, 100.0)
        assert size(start) == decided
        assert decided % batch_rows == 0
        assert batch_rows <= decided <= batch_rows * batches
        start += decided


def test_a_group_of_a_slow_model_is_one_batch_and_of_a_fast_one_the_most() -> None:
    size = GroupSize(8, 8192)
    assert size(0) == 8
    size.learn(8, 8 * GROUP_S)
    assert size(8) == 8
    size.learn(8, GROUP_S / 100)
    assert size(16) == 800
    size.learn(800, 0.0)
    assert size(816) == 8192


def test_groups_are_all_of_one_size_where_results_depend_on_it() -> None:
    size = GroupSize(8, 256, fixed=True)
    size.learn(8, 1000.0)
    assert (size(0), size(256)) == (256, 256)
