"""The choice of an endpoint: the fewest in flight, none that is away, full, busy or has another model."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from headrace.runtimes.remote.endpoints.load import (
    LONGEST_BUSY_PAUSE_S,
    SILENCES,
    Load,
    choose,
    most_in_flight,
    wait_s,
)


def load(in_flight: int = 0, limit: int = 4) -> Load:
    one = Load(lambda: 1.0, limit)
    one.in_flight = in_flight
    return one


def test_the_endpoint_with_the_fewest_in_flight_is_next() -> None:
    assert choose([load(2), load(1), load(3)], 0.0, 0) == 1


def test_equals_take_turns() -> None:
    loads = [load(), load(), load()]
    assert [choose(loads, 0.0, turn) for turn in range(6)] == [0, 1, 2, 0, 1, 2]


def test_full_ones_and_those_that_were_tried_are_passed_over() -> None:
    loads = [load(4), load(3), load(0)]
    assert choose(loads, 0.0, 0, {2}) == 1
    assert choose(loads, 0.0, 0, {1, 2}) is None


def test_one_that_is_away_takes_nothing_until_it_was_checked_and_then_one_batch() -> None:
    one = load()
    one.begin()
    assert one.failed(0.0)
    one.end()
    assert choose([one], 0.0, 0) is None
    assert wait_s([one], 0.0) > 0
    assert one.breaker.begin_check(1.0)
    one.breaker.ready()
    assert choose([one], 1.0, 0) == 0
    one.begin()
    assert choose([one], 1.0, 0) is None
    assert one.is_up(1.0)
    assert one.succeeded(1.1, 8)
    one.end()
    assert choose([one], 1.1, 0) == 0


def test_a_busy_one_rests_longer_each_time_until_it_answers() -> None:
    one = load(limit=0)
    waits = []
    for now in range(0, 40, 2):
        one.busy(float(now), 0.0)
        waits.append(one.wait_s(float(now)))
        assert not one.takes(float(now))
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_BUSY_PAUSE_S
    one.answered()
    one.busy(100.0, 0.0)
    assert one.wait_s(100.0) < 0.1


def test_a_server_that_names_a_time_gets_it() -> None:
    one = load()
    one.busy(0.0, 7.5)
    assert one.wait_s(0.0) == 7.5
    assert not one.is_up(7.0)
    assert one.is_up(7.5)


def test_several_deadlines_without_any_answer_count_as_away_and_one_does_not() -> None:
    one = load()
    for _ in range(SILENCES - 1):
        assert not one.silent(0.0)
    one.answered()
    for _ in range(SILENCES - 1):
        assert not one.silent(0.0)
    assert one.is_up(0.0)
    assert one.silent(0.0)
    assert not one.is_up(0.0)


def test_all_that_are_up_count_together_and_at_least_one_batch_may_ask() -> None:
    loads = [load(limit=3), load(limit=5)]
    assert most_in_flight(loads, 0.0) == 8
    loads[0].failed(0.0)
    assert most_in_flight(loads, 0.0) == 5
    loads[1].mismatch = "another model"
    assert most_in_flight(loads, 0.0) == 1
    assert choose(loads, 0.0, 0) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=6), st.integers(0, 100))
def test_the_chosen_one_has_room_and_no_other_has_more(states: list[tuple[int, bool]], turn: int) -> None:
    loads = [load(in_flight) for in_flight, _ in states]
    for one, (_, away) in zip(loads, states, strict=True):
        if away:
            one.failed(0.0)
    at = choose(loads, 0.0, turn)
    free = [one.in_flight for one in loads if one.takes(0.0)]
    assert (at is None) == (not free)
    if at is not None:
        assert loads[at].in_flight == min(free)
