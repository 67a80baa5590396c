"""The size of bulk batches beside online requests."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from headrace.workers.bulk.shards.sizing import LEAST_S, PRESENT_S, SHARE, BulkSizing


def linear(fixed_s: float, row_s: float) -> Callable[[float], float]:
    return lambda rows: fixed_s + row_s * rows


def test_batches_are_full_while_no_online_request_came_lately() -> None:
    sizing = BulkSizing()
    assert sizing.rows(0.0, linear(1.0, 1.0), 64) == 64
    sizing.online(10.0, 0.001)
    assert sizing.rows(10.0 + PRESENT_S + 0.1, linear(1.0, 1.0), 64) == 64


def test_beside_online_requests_a_batch_takes_a_share_of_what_theirs_take() -> None:
    sizing = BulkSizing()
    sizing.online(10.0, 0.1)
    rows = sizing.rows(10.1, linear(0.0, 0.001), 64)
    assert rows == 16
    assert rows * 0.001 <= 0.1 * SHARE


def test_a_single_row_always_runs() -> None:
    sizing = BulkSizing()
    sizing.online(0.0, 0.001)
    assert sizing.rows(0.1, linear(5.0, 5.0), 64) == 1


def test_a_model_whose_cost_is_unknown_runs_full_batches_from_which_it_is_learned() -> None:
    sizing = BulkSizing()
    sizing.online(0.0, 0.001)
    assert sizing.rows(0.1, lambda _: 0.0, 64) == 64


@given(st.floats(0, 1), st.floats(1e-6, 1), st.integers(1, 512), st.floats(1e-4, 10))
def test_no_batch_takes_longer_than_its_share_but_what_one_row_takes(
    fixed_s: float, row_s: float, most: int, online_s: float
) -> None:
    sizing = BulkSizing()
    sizing.online(0.0, online_s)
    predict = linear(fixed_s, row_s)
    rows = sizing.rows(1.0, predict, most)
    assert 1 <= rows <= most
    assert rows == 1 or predict(rows) <= max(predict(1), SHARE * online_s, LEAST_S)
