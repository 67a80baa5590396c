"""The micro-batcher: which requests leave together, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

from headrace.workers.batching.batch import Batch, Item, Reason
from headrace.workers.batching.bucket import Bucket
from headrace.workers.batching.cost import CostModel
from headrace.workers.batching.policy import BatchPolicy
from headrace.workers.batching.waiting import MIN_ARRIVALS, WAIT_FACTOR, ArrivalWatch, Waiting

T = TypeVar("T")

#: The longest wait that is ever considered, as a share of the fixed seconds of a run: merging two runs saves
#: no more than that fixed time, and the replies of a run can't bring anything about before it has ended.
_LONGEST_WAIT: Final = 0.5


class MicroBatcher(Generic[T]):
    """Gathers requests into batches; pure: monotonic seconds come in as `now`, and nothing blocks.

    Work-conserving: `take` returns a batch whenever something waits, unless a short wait for more requests pays (see
    docs/batching.md). Order: priority, then deadline (none last), then arrival; waiting raises the priority
    (AGEING_S). A batch holds one bucket, that of the most urgent request, and no request overtakes another of it
    to fill a gap. Not safe to call from several threads at once.

    Use: when an executor is free, `pop_expired`, then `take`. If that returns None, ask again after the
    next `put`, or at `wake_at`, whichever comes first.
    """

    __slots__ = (
        "_buckets",
        "_expired",
        "_gone",
        "_last_arrived",
        "_max_rows",
        "_next_review",
        "_put",
        "_wait_began",
        "_watch",
        "cost",
        "policy",
    )

    def __init__(self, policy: BatchPolicy, cost: CostModel) -> None:
        """cost: shared with the executor, which tells it how long each run took."""
        self.policy = policy
        self.cost = cost
        self._max_rows = policy.max_rows
        self._buckets: dict[Hashable, Bucket[T]] = {}
        self._expired: list[Item[T]] = []
        #: Counts of requests that ever came in and that ever went out again.
        self._put = 0
        self._gone = 0
        self._last_arrived = -math.inf
        #: Nothing ages or expires before this moment.
        self._next_review = math.inf
        self._watch = ArrivalWatch()
        #: When `take` first declined to give what waits now.
        self._wait_began: float | None = None

    def put(self, item: Item[T]) -> None:
        """Queue a request."""
        arrived = item.arrived
        if arrived > self._watch.until:
            self._watch.pass_by(arrived, self._put, self._last_arrived)
        self._last_arrived = arrived
        self._put += 1
        bucket = self._buckets.get(item.bucket)
        if bucket is None:
            bucket = self._buckets[item.bucket] = Bucket()
        due = bucket.add(item)
        if due < self._next_review:  # noqa: PLR1730 - min() costs twice as much here
            self._next_review = due

    def put_many(self, items: Iterable[Item[T]]) -> None:
        """Queue several requests."""
        for item in items:
            self.put(item)

    def take(self, now: float, *, drain: bool = False) -> Batch[T] | None:
        """Return the batch that should run now, for an executor that is free; None if nothing waits, or a wait pays.

        drain: nothing waits any more, because the worker shuts down.
        """
        self._review(now)
        if self._wait_began is None:
            self._watch.close(self._put, self._last_arrived)
        bucket = self._most_urgent()
        if bucket is None:
            self._wait_began = None
            return None
        leave_at, reason = (now, Reason.DRAIN) if drain else self._leave_at(bucket, now)
        if leave_at > now:
            self._wait_began = self._watch.opened
            return None
        self._wait_began = None
        return self._form(bucket, reason, now)

    def wake_at(self, now: float) -> float | None:
        """Return the moment (not before `now`) for the next `take` if nothing is put in until then.

        If `take` declined, it returns a batch at that moment at the latest. None if nothing waits.
        """
        self._review(now)
        bucket = self._most_urgent()
        if bucket is None:
            return None
        return now if self._wait_began is None else max(self._leave_at(bucket, now)[0], now)

    def pop_expired(self, now: float) -> list[Item[T]]:
        """Take out the requests whose deadline has passed (deadline ≤ now); `take` never returns them."""
        self._review(now)
        if not self._expired:
            return []
        expired, self._expired = self._expired, []
        self._gone += len(expired)
        return expired

    def remove(self, unwanted: Callable[[Item[T]], bool]) -> list[Item[T]]:
        """Take out all requests for which `unwanted` is true (cancellation); looks at every one."""
        removed = [item for item in self._expired if unwanted(item)]
        gone = set(removed)
        self._expired = [item for item in self._expired if item not in gone]
        for key, bucket in list(self._buckets.items()):
            removed += bucket.remove(unwanted)
            if not bucket.rows:
                del self._buckets[key]
        self._gone += len(removed)
        return removed

    def set_max_rows(self, rows: int | None) -> None:
        """Cap the rows of a batch below the policy's for a while (out of memory); None lifts the cap.

        With fixed sizes, the padded rows keep to the cap too, unless it is below the smallest size.
        """
        self._max_rows = self.policy.max_rows if rows is None else self.policy.capped(rows)

    def use(self, policy: BatchPolicy) -> None:
        """Batch by another policy from now on, with no other cap."""
        self.policy = policy
        self._max_rows = policy.max_rows

    def lower_limit(self, rows: int) -> None:
        """Cap the rows of a batch, but never raise a cap that is lower already."""
        self.set_max_rows(min(rows, self._max_rows))

    @property
    def max_rows(self) -> int:
        """The most rows of a batch at present."""
        return self._max_rows

    @property
    def rows_waiting(self) -> int:
        """The rows of all requests held, expired ones included until `pop_expired`."""
        return sum(bucket.rows for bucket in self._buckets.values()) + sum(item.rows for item in self._expired)

    def __len__(self) -> int:
        """Return the number of requests held, expired ones included until `pop_expired`."""
        return self._put - self._gone

    def _most_urgent(self) -> Bucket[T] | None:
        buckets = self._buckets.values()
        if len(buckets) <= 1:
            return next(iter(buckets), None)
        return min(buckets, key=Bucket.urgency)

    def _review(self, now: float) -> None:
        """Set aside what has expired, and let the rest age."""
        if now < self._next_review:
            return
        self._next_review = math.inf
        for key, bucket in list(self._buckets.items()):
            self._expired += bucket.review(now)
            if bucket.rows:
                self._next_review = min(self._next_review, bucket.next_review())
            else:
                del self._buckets[key]

    def _leave_at(self, bucket: Bucket[T], now: float) -> tuple[float, Reason]:
        """Decide when the bucket's next batch leaves (≤ now: at once), and the reason if it does not fill up."""
        if bucket.rows >= self._max_rows:
            return now, Reason.FULL
        if len(self._buckets) > 1:
            return now, Reason.BUCKET
        latest = bucket.oldest() + self.policy.max_wait_s
        if latest <= now or not self.cost.confident:
            return now, Reason.IDLE
        return self._wait_until(bucket, now, latest)

    def _wait_until(self, bucket: Bucket[T], now: float, latest: float) -> tuple[float, Reason]:
        watch = self._watch
        longest_s = min(self.policy.max_wait_s, _LONGEST_WAIT * self.cost.seconds_fixed)
        if self._wait_began is None:
            watch.open(now, self._put, longest_s, self._seconds(bucket.rows))
        elif watch.opened is None:
            # The executor comes back so late that even a whole run would have ended.
            return now, Reason.IDLE
        began = now if self._wait_began is None else self._wait_began
        latest = min(latest, began + min(longest_s, WAIT_FACTOR * watch.span_s))
        waiting = self._prospect(bucket, latest - now)
        if latest <= now or waiting.arrivals < MIN_ARRIVALS or waiting.saves_s() <= 0:
            return now, Reason.IDLE
        rows = waiting.rows + math.ceil(waiting.arrivals * waiting.rows / waiting.present)
        start_by = bucket.earliest_deadline() - self._seconds(rows)
        return min(latest, start_by), Reason.DEADLINE

    def _prospect(self, bucket: Bucket[T], wait_s: float) -> Waiting:
        """Return the arrivals to expect of a wait, given those since it began."""
        watch = self._watch
        present = len(bucket)
        come = watch.seen(self._put)
        room = (self._max_rows - bucket.rows) * present / bucket.rows
        arrivals = min(max(watch.arrivals - come, 0.0), room)
        during_run = max(watch.during_run - come, arrivals)
        return Waiting(present, bucket.rows, arrivals, during_run, wait_s, self._seconds)

    def _seconds(self, rows: float) -> float:
        return self.cost.predict(self.policy.padded(math.ceil(rows)) if self.policy.row_sizes else rows)

    def _form(self, bucket: Bucket[T], reason: Reason, now: float) -> Batch[T]:
        fits = bucket.rows <= self._max_rows
        items = bucket.pop_all() if fits else bucket.pop_rows(self._max_rows)
        if self.policy.row_sizes:
            self._prefer_exact_fill(bucket, items, now)
        rows = sum([item.rows for item in items])
        if bucket.rows:
            reason = Reason.DRAIN if reason is Reason.DRAIN else Reason.BACKLOG
        else:
            del self._buckets[items[0].bucket]
        self._gone += len(items)
        return Batch(items, rows, reason, items[0].bucket, self.policy.padded(rows))

    def _prefer_exact_fill(self, bucket: Bucket[T], items: list[Item[T]], now: float) -> None:
        """Leave a rest behind if an exact fill now and the rest after it take less time than one padded run."""
        total = sum([item.rows for item in items])
        if self.policy.padded(total) == total:
            return
        whole = best = self._work(total)
        rows, cut = 0, len(items)
        for index, item in enumerate(items, 1):
            rows += item.rows
            if rows in self.policy.row_sizes and rows < total:
                split = self._work(rows) + self._work(total - rows)
                # Of equals the larger: it answers more requests first.
                if split < whole and split <= best:
                    best, cut = split, index
        bucket.put_back(items[cut:], now)
        del items[cut:]

    def _work(self, rows: int) -> float:
        """Return the seconds of a run, or its padded rows while the cost is unknown."""
        return self._seconds(rows) if self.cost.confident else float(self.policy.padded(rows))
