"""Any order of puts, takes, waits, removals and expiries keeps what the batcher promises."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.workers.batching.trained_models import expecting_batcher

from headrace.workers.batching import AGEING_S, Batch, BatchPolicy, Item, Reason

#: Times are whole multiples of an eighth of this power of two, so that the machine and the batcher round alike.
TICK_S = 2.0**-10

POLICIES = [
    BatchPolicy(max_rows=8, max_wait_s=0.004),
    BatchPolicy(max_rows=16, max_wait_s=0.008),
    BatchPolicy(max_rows=8, max_wait_s=0.004, row_sizes=(1, 4, 8)),
    BatchPolicy(max_rows=1, max_wait_s=0.0),
]

requests = st.tuples(
    st.sampled_from([1, 1, 1, 2, 3, 5, 20]),
    st.sampled_from([0, 0, 0, 1, 5, 9]),
    st.none() | st.integers(0, 3000),
    st.sampled_from([0, 0, 0, 0, 1, 500, 5000]),
    st.sampled_from([None, None, None, "a", "b"]),
)


class Batching(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(POLICIES))
    def start(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.batcher, self.now = expecting_batcher(policy)
        self.max_rows = policy.max_rows
        self.waiting: set[Item[int]] = set()
        self.put_count = 0

    @rule(details=st.lists(requests, min_size=1, max_size=12))
    def put_many(self, details: list[tuple[int, int, int | None, int, str | None]]) -> None:
        items = [
            Item(0, rows, priority, None if due is None else self.now + due * TICK_S, self.now - ago * TICK_S, bucket)
            for rows, priority, due, ago, bucket in details
        ]
        self.waiting.update(items)
        self.batcher.put_many(items)

    @rule()
    def put(self) -> None:
        item = Item(0, 1, 0, None, self.now)
        self.waiting.add(item)
        self.batcher.put(item)

    @rule(ticks=st.sampled_from([1, 2, 10, 300, 2500]))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks * TICK_S

    @rule(due=st.none() | st.integers(1, 60), followers=st.integers(0, 9), takes=st.booleans())
    def a_burst_reaches_an_idle_executor(self, due: int | None, followers: int, takes: bool) -> None:
        self.pop_expired()
        while self.alive():
            self.take(drain=True)
        self.put_many([(1, 0, due, 0, None)])
        self.take(drain=False)
        for _ in range(followers):
            self.now += TICK_S / 8
            self.put()
            if takes:
                self.take(drain=False)

    @rule(drain=st.sampled_from([False, False, False, True]))
    def take(self, drain: bool) -> None:
        batch = self.batcher.take(self.now, drain=drain)
        if batch is not None:
            self.check(batch)
            assert (batch.reason is Reason.DRAIN) == drain
        elif self.alive():
            assert not drain
            self.check_wait()

    @rule()
    def take_at_the_time_it_asks_for(self) -> None:
        wake = self.batcher.wake_at(self.now)
        if wake is None:
            assert not self.alive()
            assert self.batcher.take(self.now) is None
            return
        assert wake >= self.now
        batch = self.batcher.take(self.now)
        if batch is not None:
            self.check(batch)
            return
        wake = self.batcher.wake_at(self.now)
        assert wake is not None
        assert wake > self.now
        self.now = math.ceil(wake / TICK_S) * TICK_S
        batch = self.batcher.take(wake)
        assert batch is not None
        self.check(batch, wake)

    @rule()
    def pop_expired(self) -> None:
        expired = self.batcher.pop_expired(self.now)
        assert set(expired) == {item for item in self.waiting if self.has_expired(item)}
        assert len(set(expired)) == len(expired)
        self.waiting.difference_update(expired)

    @rule(priority=st.sampled_from([0, 1, 5, 9]))
    def remove(self, priority: int) -> None:
        removed = self.batcher.remove(lambda item: item.priority == priority)
        assert set(removed) == {item for item in self.waiting if item.priority == priority}
        assert len(set(removed)) == len(removed)
        self.waiting.difference_update(removed)

    @rule(rows=st.none() | st.integers(1, 20))
    def set_max_rows(self, rows: int | None) -> None:
        self.batcher.set_max_rows(rows)
        self.max_rows = self.batcher.max_rows
        assert 1 <= self.max_rows <= self.policy.max_rows

    @precondition(lambda self: hasattr(self, "batcher"))
    @invariant()
    def the_books_agree(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        assert self.batcher.rows_waiting == sum(item.rows for item in self.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        self.pop_expired()
        while (batch := self.batcher.take(self.now, drain=True)) is not None:
            self.check(batch)
        assert not self.waiting
        assert len(self.batcher) == 0

    def has_expired(self, item: Item[int], now: float | None = None) -> bool:
        return item.deadline is not None and item.deadline <= (self.now if now is None else now)

    def alive(self) -> set[Item[int]]:
        return {item for item in self.waiting if not self.has_expired(item)}

    def urgency(self, item: Item[int], now: float) -> tuple[float, float, float]:
        level = item.priority + math.floor((now - item.arrived) / AGEING_S)
        return (-level, math.inf if item.deadline is None else item.deadline, item.arrived)

    def check(self, batch: Batch[int], now: float | None = None) -> None:
        now = self.now if now is None else now
        taken = set(batch.items)
        assert len(taken) == len(batch.items) > 0
        assert taken <= self.waiting
        assert not any(self.has_expired(item, now) for item in taken)
        assert {item.bucket for item in taken} == {batch.bucket}
        assert batch.rows == sum(item.rows for item in taken)
        assert batch.rows <= self.max_rows or len(taken) == 1
        assert batch.padded_rows == self.policy.padded(batch.rows)
        keys = [self.urgency(item, now) for item in batch.items]
        assert keys == sorted(keys)
        self.waiting -= taken
        rest = [item for item in self.waiting if not self.has_expired(item, now)]
        left_behind = [self.urgency(item, now) for item in rest if item.bucket == batch.bucket]
        assert all(keys[-1] <= key for key in left_behind)
        assert all(keys[0] <= self.urgency(item, now) for item in rest)
        self.check_reason(batch, bool(left_behind), bool(rest))

    def check_reason(self, batch: Batch[int], same_bucket_waits: bool, others_wait: bool) -> None:
        if batch.reason is Reason.DRAIN:
            return
        assert (batch.reason is Reason.BACKLOG) == same_bucket_waits
        if not same_bucket_waits:
            assert (batch.reason is Reason.FULL) == (batch.rows >= self.max_rows)
            if batch.reason is not Reason.FULL:
                assert (batch.reason is Reason.BUCKET) == others_wait

    def check_wait(self) -> None:
        alive = self.alive()
        wake = self.batcher.wake_at(self.now)
        assert wake is not None
        assert self.now < wake <= min(item.arrived for item in alive) + self.policy.max_wait_s
        rows = sum(item.rows for item in alive)
        assert rows < self.max_rows
        assert len({item.bucket for item in alive}) == 1
        finish = wake + self.batcher.cost.predict(self.policy.padded(rows))
        assert all(item.deadline is None or finish <= item.deadline for item in alive)


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
