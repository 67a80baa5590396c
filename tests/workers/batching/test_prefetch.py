"""What a worker claims ahead and puts back, decided by time alone; then two workers in a simulation, to the second."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.workers.batching.fair_simulation import IDEAL_CLAIM_S, WATCH_S, Model, Worker, World

from headrace.workers.batching.prefetch import (
    AHEAD_S,
    KEPT_S,
    LATE_S,
    Running,
    goes_back,
    opens_in_s,
    rest_s,
    rows_ahead,
    work_s,
)

seconds = st.floats(0, 1e4)
batch_seconds = st.one_of(st.floats(1e-9, 1e4), st.just(math.inf))


@given(batch_seconds, st.integers(1, 1000), st.integers(1, 10))
def test_the_next_batch_is_always_claimed_whole_and_never_more_than_is_allowed(
    batch_s: float, batch_rows: int, batches: int
) -> None:
    ahead = rows_ahead(batch_s, batch_rows, batches * batch_rows)
    assert batch_rows <= ahead <= batches * batch_rows
    assert ahead % batch_rows == 0


@pytest.mark.parametrize(
    ("batch_s", "rows"), [(0.0001, 128), (0.004, 128), (AHEAD_S, 128), (0.011, 64), (5.0, 64), (math.inf, 64)]
)
def test_two_batches_are_claimed_of_a_short_one_and_one_of_a_long_or_unknown_one(batch_s: float, rows: int) -> None:
    assert rows_ahead(batch_s, 64, 128) == rows


def test_requests_that_run_alone_are_claimed_ahead_as_far_as_they_are_short() -> None:
    assert [rows_ahead(each_s, 1, 8) for each_s in (0.001, 0.003, 0.009, 0.02)] == [8, 4, 2, 1]


@given(seconds, seconds)
def test_nothing_is_claimed_while_what_is_here_takes_longer_than_that(free: float, waiting: float) -> None:
    delay_s = opens_in_s(free, waiting)
    assert (delay_s == 0) == (free + waiting <= AHEAD_S)
    if 0 < delay_s < math.inf:
        # Then the batch that runs has come so near its end that there is room, if nothing else happened.
        assert opens_in_s(max(free - delay_s - 1e-9, 0.0), waiting) == pytest.approx(0, abs=1e-8)


@given(st.floats(AHEAD_S, 1e4, exclude_min=True))
def test_no_time_brings_room_while_too_much_waits(waiting: float) -> None:
    assert opens_in_s(0.0, waiting) == math.inf


@given(st.floats(0, 1e6), st.floats(1e-6, 1e4), st.floats(0, 1))
def test_a_batch_comes_nearer_to_its_end_and_is_late_after_it(began: float, takes: float, part: float) -> None:
    running = Running(began, takes)
    assert running.rest_s(began) == pytest.approx(takes, rel=1e-6, abs=1e-6)
    assert running.rest_s(began + takes * part) == pytest.approx(takes * (1 - part), rel=1e-6, abs=1e-6)
    assert running.rest_s(began + takes + LATE_S / 2) == 0
    assert running.rest_s(began + takes + LATE_S + 0.001) == math.inf


def test_a_batch_of_an_unknown_model_counts_as_long_until_it_ends() -> None:
    running = Running(10.0, math.inf)
    assert running.rest_s(10.0) == running.rest_s(1e9) == math.inf
    assert opens_in_s(running.rest_s(11.0), 0.0) == math.inf
    assert goes_back(running.rest_s(10.0))
    assert running.held_up_others(10.001)
    assert rest_s(None, 10.0) == 0


@given(st.floats(0, 0.1), st.floats(0, 0.2))
@example(0.01, 0.0)
def test_whoever_could_not_claim_for_a_part_of_a_batch_is_called_after_it(takes: float, took: float) -> None:
    running = Running(1.0, takes)
    moments = [1.0 + took * step / 50 for step in range(51)]
    if any(opens_in_s(running.rest_s(now), 0.0) > 0 for now in moments):
        assert running.held_up_others(1.0 + took)


@given(seconds)
def test_what_goes_back_is_not_claimed_again_by_the_same_worker(free: float) -> None:
    if goes_back(free):
        assert opens_in_s(free, 0.0) >= free - AHEAD_S >= KEPT_S - AHEAD_S > 0


@given(st.floats(0, 1), st.floats(0, 0.1), st.integers(-3, 500), st.integers(1, 100))
def test_the_work_that_waits_is_that_of_its_batches(fixed: float, per_row: float, rows: int, batch_rows: int) -> None:
    def predict(of: float) -> float:
        return fixed + per_row * of

    work = work_s(predict, rows, batch_rows)
    if rows <= 0:
        assert work == 0
    elif fixed + per_row == 0:
        assert work == math.inf
    else:
        assert work == pytest.approx(fixed * -(-rows // batch_rows) + per_row * rows)


SLOW = Model("slow", batch_rows=4, batch_s=5.0)
FAST = Model("fast", batch_rows=64, batch_s=0.002)


def test_two_workers_share_slow_batches() -> None:
    world = World([Worker(), Worker()], [SLOW, FAST])
    world.send("slow", at=0.0, count=8)
    world.run_until_done()
    assert world.makespan_s("slow") <= 1.1 * SLOW.batch_s


@pytest.mark.parametrize("slow_count", [1, 4, 8, 40])
@pytest.mark.parametrize("workers", [2, 3])
def test_slow_batches_are_spread_as_well_as_they_can_be(slow_count: int, workers: int) -> None:
    world = World([Worker() for _ in range(workers)], [SLOW, FAST])
    world.send("slow", at=0.0, count=slow_count)
    for number in range(100):
        world.send("fast", at=0.01 * number, count=1)
    world.run_until_done()
    batches = -(-slow_count // SLOW.batch_rows)
    assert world.makespan_s("slow") <= 1.1 * SLOW.batch_s * -(-batches // workers)


def test_a_fast_model_is_answered_by_the_free_worker_as_if_there_were_no_slow_one() -> None:
    def p99(with_slow: bool) -> float:
        world = World([Worker(), Worker()], [SLOW, FAST])
        for at in range(0, 60, 6):
            if with_slow:
                world.send("slow", at=float(at), count=4)
        for number in range(6000):
            world.send("fast", at=0.01 * number + 0.003, count=1)
        world.run_until_done()
        waits = sorted(world.waits_s("fast"))
        return waits[int(0.99 * len(waits))]

    assert p99(with_slow=True) <= 3 * p99(with_slow=False)


def test_a_request_is_put_back_at_most_once_for_each_long_batch_that_begins() -> None:
    world = World([Worker()], [SLOW, FAST, Model("other", batch_rows=4, batch_s=3.0)])
    for number in range(60):
        world.send("fast", at=0.5 * number, count=1)
        world.send("other", at=0.5 * number, count=1)
        world.send("slow", at=0.5 * number, count=1)
    world.run_until_done()
    assert max(world.put_back_counts()) <= world.long_batches
    # Models take turns, so nobody starves: between two batches of one there is at most one of each other.
    assert max(world.waits_s("fast")) <= 2 * (SLOW.batch_s + 3.0) + 1


def test_a_saturated_fast_model_never_waits_for_a_claim() -> None:
    world = World([Worker()], [FAST])
    world.send("fast", at=0.0, count=64 * 200)
    world.run_until_done()
    assert world.makespan_s("fast") <= 200 * FAST.batch_s + 2 * IDEAL_CLAIM_S + FAST.batch_s
    assert sum(world.put_back_counts()) <= 64 * 2  # of the first batch, whose cost nobody knew


def test_batches_that_take_longer_than_predicted_hold_nothing_for_long() -> None:
    erratic = Model("erratic", batch_rows=4, batch_s=0.004, every_tenth_s=2.0)
    world = World([Worker() for _ in range(4)], [erratic])
    for burst in range(200):
        world.send("erratic", at=0.5 * burst, count=8)
    world.run_until_done()
    # Some worker was free nearly always, but what lay behind a batch that turned out long had to wait for that to show.
    began = sorted(world.starts_after_s("erratic"))
    assert began[int(0.95 * len(began))] <= LATE_S + WATCH_S + 0.05
    assert any(world.put_back_counts())
