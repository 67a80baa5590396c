"""When a relay looks for what the broker may have lost: with a clock of the test's own."""

from __future__ import annotations

from headrace.workers.relay import SETTLED_S, Recovery


def test_a_broker_that_is_known_to_hold_all_is_not_looked_at() -> None:
    recovery = Recovery()
    assert not recovery.needed("a", "a", 0.0)
    assert not recovery.settled("a", "a")


def test_another_broker_is_looked_at_twice_before_it_is_remembered() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    assert not recovery.settled("b", "a")
    recovery.done(103.0)
    assert not recovery.settled("b", "a")
    assert not recovery.needed("b", "a", 103.0 + SETTLED_S - 1)
    assert recovery.needed("b", "a", 103.0 + SETTLED_S)
    recovery.done(103.0 + SETTLED_S + 1)
    assert recovery.settled("b", "a")
    assert not recovery.needed("b", "a", 1000.0)


def test_a_look_that_failed_is_needed_again() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    assert recovery.needed("b", "a", 101.0)


def test_a_broker_that_changes_again_is_looked_at_anew() -> None:
    recovery = Recovery()
    assert recovery.needed("b", "a", 100.0)
    recovery.done(100.0)
    assert recovery.needed("c", "a", 101.0)
    recovery.done(101.0)
    assert not recovery.settled("b", "a")
    assert not recovery.settled("c", "a")
    assert recovery.needed("b", "a", 102.0)
