"""When a client looks for its requests and what it concludes: with a clock of the test's own, and no server."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from headrace.contracts.message import Reply
from headrace.producers.replies import losses as losses_module
from headrace.producers.replies.losses import (
    AGAIN_S,
    OVERDUE_S,
    PROBE_EVERY_S,
    Ask,
    Losses,
    Pause,
    Probe,
    Read,
    round_of_looks,
)
from headrace.producers.replies.pending import Pending, Waiting
from headrace.queueing.connection.identity import ServerIdentity
from headrace.queueing.keys import Keys

LEASE_S = 60.0
FIRST, SECOND = ServerIdentity("e1", "r", "m"), ServerIdentity("e2", "r", "m")


class World:
    """A client's requests, and what a broker and a store hold; `round` is one round of looks."""

    def __init__(self) -> None:
        self.losses, self.pending, self.now = Losses(LEASE_S), Pending(), 1000.0
        self.identity, self.queued, self.stored = FIRST, set[str](), dict[str, Reply]()
        self.losses.probed(FIRST)
        self.round()
        self.wakes: list[str] = []

    def submit(
        self, *names: str, deadline_s: float | None = None, queued: bool = True, wait: bool = False
    ) -> list[Waiting]:
        handles = [Waiting(name, "digits") for name in names]
        self.pending.add(handles, self.losses.standing(self.now, deadline_s))
        if queued:
            self.queued.update(names)
        if wait:
            for handle in handles:
                self.pending.watch(handle, partial(self.wakes.append, handle.id), self.now)
        return handles

    def round(self, before_look: Callable[[int], None] = lambda _: None) -> tuple[int, float]:
        """Go through a round; give how often the queue was read and how long was paused between looks."""
        looks, paused = 0, 0.0
        answer: Any = None
        steps = round_of_looks(self.losses, self.pending, Keys(), lambda: self.now)
        while True:
            try:
                wish = steps.send(answer)
            except StopIteration:
                return looks, paused
            answer = None
            match wish:
                case Probe():
                    answer = self.identity
                case Ask(command=("EVAL", _, 0, "infer.digits", _)):
                    looks += 1
                    before_look(looks)
                    answer = [-1, *(f'"{name}"'.encode() for name in self.queued)]
                case Ask(command=("EVAL", *_)):
                    answer = [-1]
                case Ask():
                    answer = []
                case Read(handles=handles):
                    ids = {handle.id for handle in handles}
                    replies = [reply for name, reply in self.stored.items() if name in ids]
                    self.pending.settle(replies)
                    answer = {reply.id for reply in replies}
                case Pause(seconds=seconds):
                    paused += seconds
                    self.now += seconds


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_looked_for_while_the_broker_is_the_same(world: World) -> None:
    world.submit("a", queued=False, wait=True)
    world.now += 10 * LEASE_S
    assert world.round() == (0, 0.0)


def test_what_a_broker_with_other_data_has_not_is_lost_after_two_looks(world: World) -> None:
    here, gone, ended = world.submit("here", "gone", "ended", wait=True)
    world.identity, world.queued = SECOND, {"here"}
    world.stored["ended"] = Reply(id="ended", state="succeeded")
    assert world.round() == (2, AGAIN_S)
    assert [each.standing.lost for each in (here, gone, ended)] == [False, True, False]
    assert ended.reply is not None
    assert sorted(world.wakes) == ["ended", "gone"]
    assert world.round() == (0, 0.0)


def test_a_request_that_moves_backward_during_the_first_look_is_not_lost(world: World) -> None:
    (handle,) = world.submit("a", queued=False, wait=True)
    world.identity = SECOND

    def put_back(look: int) -> None:
        if look == 2:
            world.queued.add("a")

    assert world.round(put_back) == (2, AGAIN_S)
    assert not handle.standing.lost
    # It is known to be with the broker of this identity now.
    world.queued.clear()
    assert world.round() == (0, 0.0)


def test_a_request_that_ends_during_the_looks_is_not_lost(world: World) -> None:
    (handle,) = world.submit("a", queued=False, wait=True)
    world.identity = SECOND

    def reply(look: int) -> None:
        if look == 2:
            world.pending.settle([Reply(id="a", state="succeeded")])

    world.round(reply)
    assert handle.reply is not None
    assert not handle.standing.lost


def test_all_requests_are_looked_for_also_those_that_nobody_waits_for(world: World) -> None:
    handles = world.submit(*map(str, range(10)))
    world.identity, world.queued = SECOND, {"3"}
    world.round()
    assert [each.id for each in handles if not each.standing.lost] == ["3"]


def test_more_requests_than_one_look_takes_are_looked_for_in_several(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses_module, "LOOK_REQUESTS", 3)
    handles = world.submit(*map(str, range(8)))
    world.identity, world.queued = SECOND, set("0123456")
    world.round()
    assert [each.id for each in handles if each.standing.lost] == ["7"]


def test_what_was_submitted_before_the_identity_was_known_is_doubted() -> None:
    world = World()
    world.losses = Losses(LEASE_S)
    (handle,) = world.submit("a", queued=False)
    assert not world.losses.identity_known
    world.round()
    assert handle.standing.lost


def test_a_request_whose_submission_met_the_change_is_looked_for_afterwards(world: World) -> None:
    (handle,) = world.submit("a", queued=False)
    standing = handle.standing
    world.identity = SECOND
    world.round()
    was_lost = handle.standing.lost
    assert was_lost
    world.queued.add("a")
    assert world.losses.is_past(standing)
    world.losses.doubt([handle], standing)
    assert not handle.standing.lost
    assert world.round() == (1, 0.0)
    assert not handle.standing.lost


def test_a_break_is_a_reason_where_no_more_than_the_epoch_can_be_read(world: World) -> None:
    (handle,) = world.submit("a", queued=False)
    world.losses.connection_broke()
    assert world.round() == (0, 0.0)
    world.identity = ServerIdentity("e1", "", "")
    world.queued.add("a")
    assert world.round() == (1, 0.0)
    world.queued.clear()
    world.losses.connection_broke()
    world.round()
    assert handle.standing.lost


def test_a_handle_of_another_client_is_doubted_by_who_adopts_it(world: World) -> None:
    other = World()
    (handle,) = other.submit("a")
    world.losses.adopt(handle)
    world.pending.adopt(handle)
    world.round()
    assert handle.standing.lost


def test_a_waiter_past_its_deadline_is_looked_for_ever_less_often(world: World) -> None:
    (handle,) = world.submit("a", deadline_s=10.0, wait=True)
    world.now = 1010.0 + OVERDUE_S - 0.1
    assert world.round() == (0, 0.0)
    world.now, looked_at = 1010.0, []
    while world.now < 1010.0 + 200:
        if world.round()[0]:
            looked_at.append(round(world.now - 1010.0))
        world.now += 0.5
    assert looked_at == [5, 10, 20, 40, 80, 160]
    assert not handle.standing.lost
    world.queued.clear()
    world.now += 500
    assert world.round() == (2, AGAIN_S)
    assert handle.standing.lost


def test_a_status_is_a_reason_after_a_lease_and_then_for_all(world: World) -> None:
    a, b = world.submit("a", "b")
    world.now += LEASE_S - 1
    (young,) = world.submit("young", queued=False)
    world.losses.due_at = math.inf
    assert not world.losses.asked_for(a, world.now)
    world.now += 1
    world.queued = {"b"}
    assert world.losses.asked_for(a, world.now)
    world.round()
    assert [each.standing.lost for each in (a, b, young)] == [True, False, False]
    world.losses.due_at = math.inf
    assert not world.losses.asked_for(b, world.now)
    world.now += LEASE_S
    assert world.losses.asked_for(b, world.now)


def test_a_status_is_a_reason_to_probe_from_time_to_time(world: World) -> None:
    (a,) = world.submit("a")
    world.round()
    assert not world.losses.asked_for(a, world.now)
    world.now += PROBE_EVERY_S
    assert world.losses.asked_for(a, world.now)


def test_a_look_that_fails_is_begun_anew(world: World) -> None:
    (handle,) = world.submit("a", queued=False)
    world.identity = SECOND
    steps = round_of_looks(world.losses, world.pending, Keys(), lambda: world.now)
    next(steps)
    assert isinstance(steps.send(SECOND), Ask)
    steps.close()
    world.losses.failed()
    assert not handle.standing.lost
    assert world.round() == (2, AGAIN_S)
    assert handle.standing.lost


def test_probing_begins_some_time_after_a_request_was_submitted(world: World) -> None:
    (first,) = world.submit("first")
    world.losses.due_at = -math.inf
    world.losses.begin_probing(first)
    assert world.losses.due_at == world.now + PROBE_EVERY_S


def test_waiting_again_and_again_for_a_moment_puts_no_probe_off(world: World) -> None:
    (old,) = world.submit("old")
    world.round()
    due_at = world.losses.due_at
    for _ in range(10):
        world.now += 0.5
        world.losses.begin_probing(old)
    assert world.losses.due_at == due_at < world.now


@pytest.mark.parametrize("piece_s", [0.0001, 0.001, 0.01])
def test_two_looks_through_two_million_messages_end_within_the_lease(world: World, piece_s: float) -> None:
    """At most a tenth of the server's time at first, then half of it."""
    pieces = int(min(8_000, 8 / piece_s))
    world.submit("gone", queued=False, wait=True)
    world.identity = SECOND
    began, looked = world.now, 0
    answer: Any = None
    steps = round_of_looks(world.losses, world.pending, Keys(), lambda: world.now)
    with contextlib.suppress(StopIteration):
        while True:
            wish, answer = steps.send(answer), None
            match wish:
                case Probe():
                    answer = world.identity
                case Ask(command=("EVAL", _, 0, "infer.digits", int(at))):
                    world.now += piece_s
                    looked += 1
                    answer = [at + 1 if at < pieces else -1]
                case Ask(command=("EVAL", *_)):
                    answer = [-1]
                case Ask():
                    answer = []
                case Read():
                    answer = set()
                case Pause(seconds=seconds):
                    world.now += seconds
    assert looked == 2 * (pieces + 1)
    assert world.now - began < LEASE_S - PROBE_EVERY_S


def test_a_short_lease_is_probed_for_more_often() -> None:
    assert [Losses(lease_s).probe_every_s for lease_s in (0.1, 2.0, 60.0)] == [0.1, 0.5, PROBE_EVERY_S]
    assert [Losses(lease_s).again_s for lease_s in (2.0, 60.0)] == [0.5, AGAIN_S]
