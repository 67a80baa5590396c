"""Who is woken by which reply, and when a request is looked up in the store: with a clock of the test's own."""

from __future__ import annotations

import math

from headrace.contracts.message import Reply
from headrace.producers.replies.pending import LOOKUP_EVERY_S, LOOKUP_REQUESTS, STATUS_EVERY_S, Pending, Waiting


def waiting(pending: Pending, *names: str) -> list[Waiting]:
    handles = [Waiting(name, "digits") for name in names]
    pending.add(handles)
    return handles


class Bell:
    def __init__(self) -> None:
        self.rings = 0

    def __call__(self) -> None:
        self.rings += 1


def test_a_reply_wakes_those_who_wait_for_it() -> None:
    pending, mine, also_mine, other = Pending(), Bell(), Bell(), Bell()
    a, b = waiting(pending, "a", "b")
    pending.watch(a, mine, 0)
    pending.watch(a, also_mine, 0)
    pending.watch(b, other, 0)
    pending.settle([Reply(id="a", state="succeeded"), Reply(id="nobody's", state="succeeded")])
    assert (mine.rings, also_mine.rings, other.rings) == (1, 1, 0)
    assert a.reply is not None
    assert b.reply is None


def test_the_first_reply_counts() -> None:
    pending = Pending()
    (a,) = waiting(pending, "a")
    pending.settle([Reply(id="a", state="succeeded"), Reply(id="a", state="failed")])
    assert a.reply is not None
    assert a.reply.state == "succeeded"


def test_a_waiter_is_looked_up_from_time_to_time() -> None:
    pending = Pending()
    (a,) = waiting(pending, "a")
    pending.watch(a, Bell(), 100.0)
    assert pending.next_lookup == 100.0 + LOOKUP_EVERY_S
    assert pending.due(pending.next_lookup - 0.01) == []
    assert pending.due(pending.next_lookup) == ["a"]
    assert pending.next_lookup == 100.0 + 2 * LOOKUP_EVERY_S


def test_lookups_that_are_nearly_due_go_together() -> None:
    pending = Pending()
    a, b, c = waiting(pending, "a", "b", "c")
    for handle, at in ((a, 100.0), (b, 100.5), (c, 104.0)):
        pending.watch(handle, Bell(), at)
    assert pending.due(100.0 + LOOKUP_EVERY_S) == ["a", "b"]
    assert pending.next_lookup == 104.0 + LOOKUP_EVERY_S


def test_a_break_makes_whoever_waits_due_at_once_and_all_others_with_them() -> None:
    pending = Pending()
    a, _ = waiting(pending, "a", "b")
    pending.watch(a, Bell(), 100.0)
    pending.connection_broke(101.0)
    (fresh,) = waiting(pending, "fresh")
    pending.watch(fresh, Bell(), 101.0)
    assert pending.due(101.0) == ["a", "b"]
    assert pending.due(101.0) == []


def test_after_a_break_nothing_is_due_before_somebody_waits() -> None:
    pending = Pending()
    a, _ = waiting(pending, "a", "b")
    pending.connection_broke(101.0)
    assert pending.due(1e9) == []
    pending.watch(a, Bell(), 102.0)
    assert pending.due(102.0) == ["a", "b"]


def test_many_whose_replies_may_be_lost_are_looked_up_in_several_queries_one_after_the_other() -> None:
    pending = Pending()
    handles = waiting(pending, *map(str, range(2 * LOOKUP_REQUESTS + 5)))
    pending.watch(handles[-1], Bell(), 100.0)
    pending.connection_broke(101.0)
    found = []
    while pending.next_lookup <= 101.0:
        found.append(pending.due(101.0))
    assert [len(ids) for ids in found] == [LOOKUP_REQUESTS, LOOKUP_REQUESTS, 5]
    assert {each for ids in found for each in ids} == {handle.id for handle in handles}


def test_a_row_whose_reply_did_not_come_makes_all_others_due_but_not_again_and_again() -> None:
    """A broker without memory drops replies, and the note that says so."""
    pending = Pending()
    names = [str(number) for number in range(10)]
    handles = waiting(pending, *names)
    pending.watch(handles[0], Bell(), 100.0)
    at = pending.next_lookup
    assert pending.due(at) == ["0"]
    pending.found_in_store([Reply(id="0", state="succeeded")], at)
    assert handles[0].reply is not None
    pending.watch(handles[1], Bell(), at)
    assert pending.due(at) == names[1:]
    pending.found_in_store([Reply(id="2", state="succeeded")], at)
    assert pending.due(at) == []
    assert pending.next_lookup == at + LOOKUP_EVERY_S


def test_a_row_that_is_no_news_makes_nothing_due() -> None:
    pending = Pending()
    a, _ = waiting(pending, "a", "b")
    pending.watch(a, Bell(), 100.0)
    pending.settle([Reply(id="a", state="succeeded")])
    pending.found_in_store([Reply(id="a", state="succeeded")], 101.0)
    assert pending.due(101.0) == []


def test_a_handle_of_another_inbox_is_doubtful() -> None:
    (old,) = waiting(Pending(), "old")
    pending = Pending()
    pending.watch(old, Bell(), 100.0)
    assert pending.due(100.0) == ["old"]
    pending.settle([Reply(id="old", state="succeeded")])
    assert old.reply is not None


def test_nobody_waiting_means_nothing_to_look_up() -> None:
    pending, bell = Pending(), Bell()
    (a,) = waiting(pending, "a")
    pending.watch(a, bell, 100.0)
    pending.unwatch(a, bell)
    assert pending.next_lookup == math.inf
    assert pending.due(1e9) == []


def test_one_query_has_a_limit_and_the_rest_follows() -> None:
    pending = Pending()
    handles = waiting(pending, *map(str, range(LOOKUP_REQUESTS + 5)))
    for handle in handles:
        pending.watch(handle, Bell(), 100.0)
    at = pending.next_lookup
    assert len(pending.due(at)) == LOOKUP_REQUESTS
    assert len(pending.due(at)) == 5
    assert pending.due(at) == []


def test_waking_one_chooses_somebody_without_a_reply() -> None:
    pending, settled, open_ = Pending(), Bell(), Bell()
    a, b = waiting(pending, "a", "b")
    pending.watch(a, settled, 0)
    pending.watch(b, open_, 0)
    pending.settle([Reply(id="a", state="succeeded")])
    pending.wake_one()
    assert (settled.rings, open_.rings) == (1, 1)


def test_a_dropped_handle_is_forgotten() -> None:
    pending = Pending()
    handles = waiting(pending, "a", "b")
    assert len(pending) == 2
    del handles
    assert len(pending) == 0


def test_what_is_asked_about_is_looked_up_from_time_to_time() -> None:
    pending = Pending()
    a, b = waiting(pending, "a", "b")
    looked = []
    for tenths in range(200):
        now = 100.0 + tenths / 10
        for handle in (a, b):
            pending.ask(handle, now)
        if due := pending.due(now):
            looked.append((round(now - 100.0), due))
    assert looked == [(5, ["a", "b"]), (10, ["a", "b"]), (15, ["a", "b"])]


def test_what_is_not_asked_about_again_is_looked_up_once() -> None:
    pending = Pending()
    (a,) = waiting(pending, "a")
    pending.ask(a, 100.0)
    assert pending.next_lookup == 100.0 + LOOKUP_EVERY_S
    assert pending.due(pending.next_lookup) == ["a"]
    assert pending.next_lookup == math.inf


def test_what_is_asked_about_after_a_break_is_looked_up_at_once_and_then_seldom() -> None:
    pending = Pending()
    early, late = waiting(pending, "early", "late")
    pending.ask(early, 100.0)
    pending.connection_broke(101.0)
    assert pending.due(101.0) == ["early", "late"]
    pending.ask(late, 102.0)
    assert pending.due(102.0) == []
    assert pending.next_lookup == 102.0 + LOOKUP_EVERY_S


def test_what_was_asked_about_is_forgotten_when_it_ends_or_is_dropped() -> None:
    pending = Pending()
    a, b = waiting(pending, "a", "b")
    for handle in (a, b):
        pending.ask(handle, 100.0)
    pending.settle([Reply(id="a", state="succeeded")])
    del b, handle
    assert pending.due(100.0 + LOOKUP_EVERY_S) == []
    assert pending.next_lookup == math.inf


def test_many_that_are_asked_about_are_looked_up_in_several_queries() -> None:
    pending = Pending()
    handles = waiting(pending, *map(str, range(LOOKUP_REQUESTS + 1)))
    for handle in handles:
        pending.ask(handle, 100.0)
    at = pending.next_lookup
    assert [len(pending.due(at)) for _ in range(3)] == [LOOKUP_REQUESTS, 1, 0]


def test_a_status_looks_for_the_row_at_a_bounded_rate() -> None:
    pending = Pending()
    (a,) = waiting(pending, "a")
    looks = [at for at in range(2000) if pending.may_look_up(a, 100.0 + at / 1000)]
    assert looks[:7] == [0, 2, 6, 14, 30, 62, 126]
    assert looks[-1] - looks[-2] == 1000 * STATUS_EVERY_S
    assert len(looks) == 7 + (2000 - 126) // 100
