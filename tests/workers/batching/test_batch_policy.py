"""The limits of batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import ConfigurationError
from headrace.workers.batching import BatchPolicy


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_rows": 0}, "max_rows"),
        ({"max_wait_s": -0.1}, "max_wait_s"),
        ({"max_wait_s": float("inf")}, "max_wait_s"),
        ({"max_wait_s": float("nan")}, "max_wait_s"),
        ({"row_sizes": (64, 8)}, "row_sizes"),
        ({"row_sizes": (8, 8, 64)}, "row_sizes"),
        ({"row_sizes": (0, 64)}, "row_sizes"),
        ({"row_sizes": (8, 32)}, "max_rows"),
    ],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        BatchPolicy(**wrong)  # type: ignore[arg-type]


def test_without_fixed_sizes_nothing_is_padded() -> None:
    assert BatchPolicy().padded(13) == 13


sizes = st.lists(st.integers(1, 200), min_size=1, max_size=6, unique=True).map(lambda some: tuple(sorted(some)))


@given(sizes, st.integers(1, 300))
def test_padding_goes_to_the_smallest_size_that_holds_the_rows(sizes: tuple[int, ...], rows: int) -> None:
    policy = BatchPolicy(max_rows=sizes[-1], row_sizes=sizes)
    holding = [size for size in sizes if size >= rows]
    assert policy.padded(rows) == (holding[0] if holding else rows)


@given(sizes, st.integers(-3, 300))
def test_no_run_under_a_cap_exceeds_it_unless_even_the_smallest_size_does(sizes: tuple[int, ...], cap: int) -> None:
    policy = BatchPolicy(max_rows=sizes[-1], row_sizes=sizes)
    most = policy.capped(cap)
    assert 1 <= most <= policy.max_rows
    assert policy.padded(most) <= max(cap, sizes[0])


def test_a_cap_is_at_least_one_row() -> None:
    assert BatchPolicy().capped(0) == 1
    assert BatchPolicy().capped(17) == 17
    assert BatchPolicy().capped(1000) == 64
