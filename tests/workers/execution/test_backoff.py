"""When failed requests are tried again, and how large batches may be after one ran out of memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.workers.execution.backoff import BASE_S, MAX_S, retry_delay_s
from headrace.workers.models.batch_limit import FULL_BATCHES, BatchLimit

chances = st.floats(0, 1)


@given(st.integers(0, 10_000), chances)
def test_waits_grow_twofold_up_to_a_limit_with_chance_in_their_upper_half(retries: int, chance: float) -> None:
    longest = min(MAX_S, BASE_S * 2 ** min(retries, 100))
    assert longest / 2 <= retry_delay_s(retries, chance) <= longest


@given(st.integers(0, 100), chances, st.floats(-10, 100))
def test_a_request_waits_no_longer_than_its_deadline(retries: int, chance: float, left_s: float) -> None:
    assert 0 <= retry_delay_s(retries, chance, left_s) <= max(left_s, 0)


@pytest.fixture
def remembered() -> list[int | None]:
    return []


def test_out_of_memory_halves_the_ceiling_and_is_remembered(remembered: list[int | None]) -> None:
    limit = BatchLimit(64, None, remembered.append)
    assert not limit.succeeded_with(64)
    limit.ran_out_at(64)
    limit.ran_out_at(64)
    limit.ran_out_at(20)
    limit.ran_out_at(1)
    assert remembered == [32, 10, 1]
    assert limit.rows == 1


def test_full_batches_raise_the_ceiling_slowly_until_it_is_gone(remembered: list[int | None]) -> None:
    limit = BatchLimit(24, 20, remembered.append)
    for _ in range(FULL_BATCHES - 1):
        assert not limit.succeeded_with(20)
    assert not limit.succeeded_with(19)
    assert limit.succeeded_with(20)
    assert limit.rows == 22
    for _ in range(FULL_BATCHES):
        limit.succeeded_with(22)
    assert limit.rows == 24
    assert remembered == [22, None]


def test_a_step_too_far_leads_back_and_not_down_to_half(remembered: list[int | None]) -> None:
    limit = BatchLimit(64, 40, remembered.append)
    for _ in range(FULL_BATCHES):
        limit.succeeded_with(40)
    limit.ran_out_at(44)
    limit.ran_out_at(40)
    assert remembered == [44, 40, 20]


@given(st.integers(1, 500), st.one_of(st.none(), st.integers(-5, 1000)), st.lists(st.integers(0, 600), max_size=50))
def test_a_ceiling_stays_between_one_row_and_what_the_package_allows(
    most: int, remembered_rows: int | None, failures: list[int]
) -> None:
    limit = BatchLimit(most, remembered_rows, lambda _: None)
    for rows in failures:
        if rows % 2:
            limit.ran_out_at(rows)
        else:
            limit.succeeded_with(rows)
        assert 1 <= limit.rows <= most
