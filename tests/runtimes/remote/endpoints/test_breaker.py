"""The circuit breaker: pauses that grow, one check, one batch on trial."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.runtimes.remote.endpoints.breaker import (
    FIRST_PAUSE_S,
    LEAST_SHARE,
    LONGEST_PAUSE_S,
    SOON_S,
    Breaker,
    State,
)


def breaker(chance: float = 1.0) -> Breaker:
    return Breaker(lambda: chance)


def takes(one: Breaker) -> bool:
    """Return whether it takes a batch now: to mypy, a property that was true once stays so, whatever is called."""
    return one.takes


def test_it_takes_batches_until_one_fails() -> None:
    one = breaker()
    assert takes(one)
    assert one.wait_s(0.0) == 0.0
    assert one.failed(0.0)
    assert not takes(one)
    assert not one.is_up
    assert one.wait_s(0.0) == pytest.approx(FIRST_PAUSE_S)


def test_failures_of_batches_that_were_in_flight_together_make_one_pause() -> None:
    one = breaker()
    assert one.failed(0.0)
    assert not one.failed(0.01)
    assert one.wait_s(0.01) == pytest.approx(FIRST_PAUSE_S - 0.01)


def test_nobody_asks_before_the_pause_is_over_and_then_one_does() -> None:
    one = breaker()
    one.failed(0.0)
    assert not one.begin_check(0.05)
    assert one.begin_check(0.2)
    assert not one.begin_check(0.2)
    assert one.wait_s(0.2) == SOON_S


def test_one_batch_is_on_trial_and_its_answer_closes_the_breaker() -> None:
    one = breaker()
    one.failed(0.0)
    one.begin_check(1.0)
    one.ready()
    assert takes(one)
    one.begin()
    assert not takes(one)
    assert one.is_up
    assert one.answered()
    assert one.state is State.CLOSED
    assert not one.answered()


def test_a_trial_that_ends_without_a_word_is_followed_by_another() -> None:
    one = breaker()
    one.failed(0.0)
    one.begin_check(1.0)
    one.ready()
    one.begin()
    one.undecided()
    assert takes(one)


def test_pauses_double_while_the_endpoint_stays_away_and_begin_anew_once_it_is_back() -> None:
    one = breaker()
    now, pauses = 0.0, []
    for _ in range(10):
        one.failed(now)
        pauses.append(one.wait_s(now))
        now += 10
        assert one.begin_check(now)
    assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE_S
    one.ready()
    one.begin()
    one.answered()
    one.failed(now)
    assert one.wait_s(now) == pytest.approx(FIRST_PAUSE_S)


def test_a_trial_that_fails_makes_the_pause_longer() -> None:
    one = breaker()
    one.failed(0.0)
    one.begin_check(1.0)
    one.ready()
    one.begin()
    assert not one.failed(1.0)
    assert one.wait_s(1.0) == pytest.approx(2 * FIRST_PAUSE_S)


def test_the_server_may_ask_for_a_longer_pause() -> None:
    one = breaker()
    one.failed(0.0, least_s=30.0)
    assert one.wait_s(0.0) == 30.0


@given(st.floats(0, 1), st.integers(0, 200))
def test_a_pause_is_never_short_of_its_share_nor_too_long(chance: float, failures: int) -> None:
    one = breaker(chance)
    now = 0.0
    for _ in range(failures + 1):
        one.failed(now)
        pause_s = one.wait_s(now)
        now += LONGEST_PAUSE_S + 1
        one.begin_check(now)
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures)
    assert max(LEAST_SHARE * longest, SOON_S) - 1e-9 <= pause_s <= max(longest, SOON_S) + 1e-9


@given(st.lists(st.sampled_from(["failed", "check", "ready", "begin", "answered", "undecided", "later"]), max_size=60))
def test_whatever_happens_at_most_one_batch_is_on_trial_and_it_never_stays_shut(steps: list[str]) -> None:
    one = breaker(0.5)
    now = 0.0
    for step in steps:
        if step == "failed":
            one.failed(now)
        elif step == "check":
            one.begin_check(now)
        elif step == "begin" and takes(one):
            was = one.state
            one.begin()
            assert takes(one) == (was is State.CLOSED)
        elif step == "later":
            now += 1
        elif step != "begin":
            getattr(one, step)()
        assert takes(one) <= one.is_up
    if one.state is State.CHECKED:
        one.failed(now)
    now += LONGEST_PAUSE_S + 1
    if one.state is State.OPEN:
        assert one.begin_check(now)
        one.ready()
    one.undecided()
    assert takes(one)
