"""When batches leave, with whom, and why."""

from __future__ import annotations

import pytest
from tests.workers.batching.trained_models import FOLLOWERS, POLICY, STEP_S, expecting_batcher, learned_cost, request

from headrace.workers import batching
from headrace.workers.batching import AGEING_S, Batch, BatchPolicy, CostModel, Item, MicroBatcher, Reason


def test_the_public_names_are_these() -> None:
    assert set(batching.__all__) == {
        "AGEING_S",
        "Batch",
        "BatchPolicy",
        "CostModel",
        "Item",
        "MicroBatcher",
        "Reason",
    }


def batcher_of(
    *items: Item[int], policy: BatchPolicy | None = None, cost: CostModel | None = None
) -> MicroBatcher[int]:
    batcher = MicroBatcher[int](policy or BatchPolicy(max_rows=4), cost or CostModel())
    batcher.put_many(items)
    return batcher


def take(batcher: MicroBatcher[int], now: float = 0.0, *, drain: bool = False) -> Batch[int]:
    batch = batcher.take(now, drain=drain)
    assert batch is not None
    return batch


def names(batch: Batch[int]) -> list[int]:
    return [item.payload for item in batch.items]


def test_an_empty_batcher_gives_nothing_and_never_wakes() -> None:
    batcher = batcher_of()
    assert batcher.take(0.0) is None
    assert batcher.wake_at(0.0) is None
    assert batcher.pop_expired(0.0) == []
    assert (len(batcher), batcher.rows_waiting) == (0, 0)


def test_idle_a_single_request_leaves_at_once() -> None:
    batch = take(batcher_of(request(7)))
    assert (names(batch), batch.rows, batch.padded_rows, batch.reason) == ([7], 1, 1, Reason.IDLE)


def test_full_when_the_bucket_exactly_fills_the_batch() -> None:
    batcher = batcher_of(request(1, rows=3), request(2))
    assert take(batcher).reason is Reason.FULL
    assert not len(batcher)


def test_full_when_one_oversized_request_is_all_there_is() -> None:
    batch = take(batcher_of(request(rows=9)))
    assert (batch.rows, batch.padded_rows, batch.reason) == (9, 9, Reason.FULL)


def test_backlog_when_more_remain_than_one_batch_takes() -> None:
    batcher = batcher_of(*[request(name) for name in range(6)])
    batch = take(batcher)
    assert (names(batch), batch.reason) == ([0, 1, 2, 3], Reason.BACKLOG)
    assert names(take(batcher)) == [4, 5]


def test_backlog_when_the_next_request_does_not_fit_and_nobody_overtakes_it() -> None:
    batcher = batcher_of(request(1, rows=2), request(2, rows=3), request(3))
    batch = take(batcher)
    assert (names(batch), batch.reason) == ([1], Reason.BACKLOG)
    assert names(take(batcher)) == [2, 3]


def test_an_oversized_request_never_shares_its_batch() -> None:
    batcher = batcher_of(request(1), request(2, rows=9), request(3))
    assert [names(take(batcher)) for _ in range(3)] == [[1], [2], [3]]


def test_bucket_when_requests_of_another_shape_wait_too() -> None:
    batcher = batcher_of(Item(1, 1, 0, None, 0.0, "a"), Item(2, 1, 0, None, 0.0, "b"), Item(3, 1, 0, None, 0.0, "a"))
    first = take(batcher)
    assert (names(first), first.bucket, first.reason) == ([1, 3], "a", Reason.BUCKET)
    second = take(batcher)
    assert (names(second), second.bucket, second.reason) == ([2], "b", Reason.IDLE)


def test_drain_takes_everything_and_never_waits() -> None:
    batcher, now = expecting_batcher()
    batcher.put_many([request(name, at=now) for name in range(3)])
    batch = take(batcher, now, drain=True)
    assert (names(batch), batch.reason) == ([0, 1, 2], Reason.DRAIN)


def test_company_that_is_expected_and_pays_is_waited_for() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(at=now))
    assert batcher.take(now) is None
    wake = batcher.wake_at(now)
    assert wake is not None
    assert now < wake <= now + POLICY.max_wait_s
    assert take(batcher, wake).reason is Reason.IDLE


def test_the_wait_ends_as_soon_as_the_expected_company_is_there() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(at=now))
    assert batcher.take(now) is None
    batcher.put_many([request(at=now + STEP_S)] * FOLLOWERS)
    assert take(batcher, now + STEP_S).rows == 1 + FOLLOWERS


def test_the_wait_ends_when_the_batch_is_full() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(at=now))
    assert batcher.take(now) is None
    batcher.put(request(rows=POLICY.max_rows - 1, at=now))
    assert batcher.wake_at(now) == now
    assert take(batcher, now).reason is Reason.FULL


def test_the_wait_ends_when_another_bucket_gets_a_request() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(1, at=now))
    assert batcher.take(now) is None
    batcher.put(Item(2, 1, 0, None, now, "other"))
    assert take(batcher, now).reason is Reason.BUCKET


def test_no_wait_beyond_the_limit_after_the_oldest_arrival() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(at=now - POLICY.max_wait_s))
    assert take(batcher, now).reason is Reason.IDLE


def test_no_wait_before_the_cost_model_is_confident() -> None:
    batcher, now = expecting_batcher()
    batcher.cost = CostModel(0.02, 0.0001)
    batcher.put(request(at=now))
    assert take(batcher, now).reason is Reason.IDLE


def test_deadline_when_a_wait_would_have_paid_but_makes_a_request_late() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(at=now, due=now + batcher.cost.predict(10)))
    assert take(batcher, now).reason is Reason.DEADLINE


def test_deadline_when_it_cuts_a_wait_short() -> None:
    batcher, now = expecting_batcher()
    due = now + batcher.cost.predict(10) + STEP_S
    batcher.put(request(at=now, due=due))
    assert batcher.take(now) is None
    wake = batcher.wake_at(now)
    assert wake is not None
    assert wake + batcher.cost.predict(10) <= due
    assert take(batcher, wake).reason is Reason.DEADLINE


def test_a_deadline_that_comes_in_during_a_wait_ends_it() -> None:
    batcher, now = expecting_batcher()
    batcher.put(request(1, at=now))
    assert batcher.take(now) is None
    batcher.put(request(2, at=now, due=now + batcher.cost.predict(2)))
    assert batcher.wake_at(now) == now
    assert names(take(batcher, now)) == [2, 1]


def test_single_requests_in_idle_traffic_never_wait() -> None:
    batcher = MicroBatcher[int](POLICY, learned_cost())
    for second in range(200):
        batcher.put(request(second, at=float(second)))
        assert names(take(batcher, float(second))) == [second]
        assert batcher.take(second + 0.1) is None


def test_a_client_that_asks_again_after_each_reply_is_not_taken_for_company() -> None:
    batcher = MicroBatcher[int](BatchPolicy(max_rows=16, max_wait_s=1.0), learned_cost())
    now = 0.0
    for name in range(200):
        batcher.put(request(name, at=now))
        assert names(take(batcher, now)) == [name]
        # A reply even sooner than the model predicts: half of the runs are faster than the average.
        now += 0.7 * batcher.cost.predict(1)


def test_priority_then_deadline_then_arrival() -> None:
    batcher = batcher_of(
        request(1, at=0.0),
        request(2, at=0.1, due=9.0),
        request(3, at=0.2, due=8.0),
        request(4, at=0.3, priority=5),
        request(5, at=0.4, priority=9, due=99.0),
        request(6, at=0.05),
        policy=BatchPolicy(max_rows=8),
    )
    assert names(take(batcher, 0.5)) == [5, 4, 3, 2, 1, 6]


def test_arrivals_out_of_order_are_put_in_order() -> None:
    assert names(take(batcher_of(request(1, at=0.2), request(2, at=0.1), request(3, at=0.2)), 0.3)) == [2, 1, 3]


def test_waits_cease_soon_after_the_company_does() -> None:
    batcher, now = expecting_batcher()
    waits = 0
    for second in range(100):
        batcher.put(request(at=now + second))
        if batcher.take(now + second) is None:
            waits = second + 1
            assert take(batcher, now + second + POLICY.max_wait_s).rows == 1
    assert 0 < waits <= 25


def test_the_bucket_of_the_most_urgent_request_goes_first() -> None:
    batcher = batcher_of(Item(1, 1, 0, None, 0.0, "a"), Item(2, 1, 3, None, 0.1, "b"))
    assert take(batcher, 0.2).bucket == "b"
    batcher.put_many([Item(3, 1, 0, None, 0.0, "b"), Item(4, 1, 5, None, 0.2, "b"), Item(5, 1, 3, None, 0.1, "a")])
    assert take(batcher, 0.2).bucket == "b"


def test_waiting_raises_the_priority_by_one_for_each_ageing_time() -> None:
    old, fresh = request(1, at=0.0), request(2, priority=2, at=2.5 * AGEING_S)
    assert names(take(batcher_of(old, fresh, policy=BatchPolicy(max_rows=1)), 2.5 * AGEING_S)) == [1]
    old, fresh = request(1, at=0.0), request(2, priority=3, at=2.5 * AGEING_S)
    assert names(take(batcher_of(old, fresh, policy=BatchPolicy(max_rows=1)), 2.5 * AGEING_S)) == [2]


@pytest.mark.parametrize(
    "loser", [Item(-1, 1, 0, None, 0.0, "rare"), Item(-1, 1, 0, None, 0.0), Item(-1, 9, 0, None, 0.0)]
)
def test_nothing_starves_under_a_constant_load_of_more_urgent_requests(loser: Item[int]) -> None:
    batcher = batcher_of(loser, policy=BatchPolicy(max_rows=2))
    now = 0.0
    for name in range(10_000):
        now = name * 0.01
        batcher.put_many([request(name, priority=9, at=now, due=now + 1000) for _ in range(2)])
        if -1 in names(take(batcher, now)):
            break
    assert now <= 10 * AGEING_S


def test_expired_requests_are_set_aside_and_never_taken() -> None:
    batcher = batcher_of(request(1, due=1.0), request(2, due=2.0), request(3))
    assert names(take(batcher, 1.0)) == [2, 3]
    assert (len(batcher), batcher.rows_waiting) == (1, 1)
    assert [item.payload for item in batcher.pop_expired(1.0)] == [1]
    assert (len(batcher), batcher.wake_at(1.0)) == (0, None)


def test_when_all_have_expired_nothing_is_left_to_take_or_to_wake_for() -> None:
    batcher = batcher_of(request(1, due=1.0), Item(2, 1, 0, 1.0, 0.0, "other"))
    assert batcher.take(1.0) is None
    assert batcher.wake_at(1.0) is None
    assert {item.payload for item in batcher.remove(lambda item: item.payload == 2)} == {2}
    assert [item.payload for item in batcher.pop_expired(1.0)] == [1]


def test_an_executor_that_comes_back_late_from_a_wait_gets_its_batch_at_once() -> None:
    batcher, now = expecting_batcher(BatchPolicy(max_rows=16, max_wait_s=1.0))
    batcher.put(request(1, at=now))
    assert batcher.take(now) is None
    batcher.put(request(2, at=now + 0.5))
    assert names(take(batcher, now + 0.5)) == [1, 2]


def test_removed_requests_are_given_back_and_gone() -> None:
    batcher = batcher_of(request(1, rows=2), request(2, due=5.0), request(3, priority=4), request(4, due=0.1))
    assert batcher.take(0.2) is not None
    batcher.put_many([request(1, rows=2), request(2, due=5.0)])
    assert sorted(item.payload for item in batcher.remove(lambda item: item.payload in {1, 4})) == [1, 4]
    assert (len(batcher), batcher.rows_waiting) == (1, 1)
    assert names(take(batcher, 0.2)) == [2]


def test_the_ceiling_can_be_lowered_and_lifted_again() -> None:
    batcher = batcher_of(*[request(name) for name in range(10)])
    batcher.set_max_rows(2)
    batcher.lower_limit(3)
    assert (batcher.max_rows, take(batcher).rows) == (2, 2)
    batcher.set_max_rows(None)
    assert (batcher.max_rows, take(batcher).rows) == (4, 4)
    batcher.set_max_rows(100)
    assert batcher.max_rows == 4


FIXED_SIZES = BatchPolicy(max_rows=16, row_sizes=(4, 8, 16))


def test_fixed_sizes_pad_up_to_the_smallest_that_holds_the_rows() -> None:
    batch = take(batcher_of(*[request()] * 7, policy=FIXED_SIZES))
    assert (batch.rows, batch.padded_rows) == (7, 8)


def test_an_exact_fill_leaves_a_rest_behind_when_both_runs_take_less_than_one_padded_run() -> None:
    batcher = batcher_of(*[request(name) for name in range(9)], policy=FIXED_SIZES, cost=learned_cost(0.001, 0.001))
    first, second = take(batcher), take(batcher)
    assert (first.rows, first.padded_rows, first.reason) == (8, 8, Reason.BACKLOG)
    assert (names(second), second.padded_rows, second.reason) == ([8], 4, Reason.IDLE)


def test_an_exact_fill_is_not_worth_a_second_run_with_high_fixed_cost() -> None:
    batcher = batcher_of(*[request()] * 9, policy=FIXED_SIZES, cost=learned_cost(0.010, 0.001))
    batch = take(batcher)
    assert (batch.rows, batch.padded_rows, batch.reason) == (9, 16, Reason.IDLE)


def test_a_lowered_ceiling_holds_for_the_padded_rows_too() -> None:
    batcher = batcher_of(*[request()] * 16, policy=FIXED_SIZES)
    batcher.set_max_rows(12)
    assert take(batcher).padded_rows == 8
    batcher.set_max_rows(1)
    assert take(batcher).padded_rows == 4
