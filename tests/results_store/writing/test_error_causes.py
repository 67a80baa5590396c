from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.results_store.writing.error_causes import (
    LOCKED_TRIES,
    TRIES,
    Bisection,
    is_data_error,
    is_rejected_for_good,
    may_pass,
    pause_s,
)

CODES = ("22001", "23514", "54000", "P0001", "42501", "HR001", "ZZZZZ")


@st.composite
def parcels(draw: st.DrawFn) -> tuple[list[int], set[int], int]:
    """Sizes of rows, which of them are refused, and the limit of a piece."""
    sizes = draw(st.lists(st.integers(0, 100), max_size=60))
    refused = draw(st.sets(st.sampled_from(range(len(sizes))))) if sizes else set()
    return sizes, refused, draw(st.integers(0, 1000))


def search(sizes: list[int], refused: set[int], limit: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Run a search against a server that refuses some rows: the rows found, those taken, and all pieces tried."""
    plan = Bisection(sizes, limit)
    found: list[int] = []
    taken: list[int] = []
    tried: list[tuple[int, int]] = []
    while (piece := plan.following()) is not None:
        tried.append(piece)
        if refused.isdisjoint(range(*piece)):
            taken += range(*piece)
        elif (row := plan.refused()) is not None:
            found.append(row)
    return found, taken, tried


@given(parcels())
def test_a_search_finds_all_refused_rows_and_writes_every_other_once(parcel: tuple[list[int], set[int], int]) -> None:
    sizes, refused, _limit = parcel
    found, taken, _ = search(*parcel)
    assert found == sorted(refused)
    assert taken == [row for row in range(len(sizes)) if row not in refused]


@given(parcels())
def test_no_piece_of_several_rows_is_larger_than_the_limit(parcel: tuple[list[int], set[int], int]) -> None:
    sizes, _, limit = parcel
    _, _, tried = search(*parcel)
    assert all(stop - start == 1 or sum(sizes[start:stop]) <= limit for start, stop in tried)


@given(st.integers(1, 3000), st.data())
def test_a_search_takes_no_more_writes_than_it_promises(count: int, data: st.DataObject) -> None:
    refused = data.draw(st.sets(st.integers(0, count - 1), max_size=5))
    _, _, tried = search([0] * count, refused, 0)
    assert len(tried) <= 2 * len(refused) * (math.ceil(math.log2(count)) + 1) + 1


@pytest.mark.parametrize("code", CODES)
def test_a_code_that_nobody_knows_blames_a_row_at_once(code: str) -> None:
    assert not may_pass(code)
    assert is_rejected_for_good(code, 1)


@pytest.mark.parametrize("code", ["08006", "25006", "40001", "53100", "53200", "57014", "58030", "XX000"])
def test_what_may_pass_is_tried_again_and_then_blames_the_row_too(code: str) -> None:
    assert not is_data_error(code)
    assert [is_rejected_for_good(code, tries) for tries in range(1, TRIES + 1)] == [False] * (TRIES - 1) + [True]


def test_a_lock_is_waited_for_longer_than_a_server_keeps_a_dead_session() -> None:
    assert not is_rejected_for_good("55P03", TRIES)
    assert is_rejected_for_good("55P03", LOCKED_TRIES)
    assert sum(map(pause_s, range(1, LOCKED_TRIES))) > 90


@given(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=5, max_size=5))
def test_no_code_is_waited_for_without_end(code: str) -> None:
    assert is_rejected_for_good(code, LOCKED_TRIES)


@given(st.integers(1, 10_000))
def test_pauses_grow_and_stay_bounded(tries: int) -> None:
    assert 0 < pause_s(tries) <= pause_s(tries + 1) <= 5
