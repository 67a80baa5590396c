"""The executor: one thread that owns the models and their batchers, and runs one batch after the other."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final

import msgspec

from headrace.contracts import Cancelled, DeadlineExceeded, HeadraceError, State
from headrace.contracts.ids import new_uuid
from headrace.queueing import RunningMark
from headrace.runtimes.base import TransientFailure
from headrace.workers.batching import Batch, Item
from headrace.workers.cancellation import end_cancelled
from headrace.workers.causes import given_up
from headrace.workers.inference import Runner, Verdict
from headrace.workers.lane import Lane
from headrace.workers.outbox import Outbox
from headrace.workers.probation import Returned
from headrace.workers.request import Deferred, FinishedBatch, InferenceRequest, Known, Outcome
from headrace.workers.retries import retry_delay_s
from headrace.workers.vital import vital_thread

logger = logging.getLogger(__name__)

#: Below all others, so that what may kill the worker runs last; ageing sees to it that this takes seconds at most.
SUSPECT_PRIORITY: Final = -1

#: How long the mark of what ran stays when nothing follows: were it taken away at once, a lone request would wait for
#: that, since its row is stored at the same time. Of what is acknowledged by then a mark says nothing any more.
MARK_LINGERS_S: Final = 0.01

#: Reason code of what ends without a model: expired, cancelled or of a model that can't be loaded.
NOT_RUN: Final = ""


class _Drain(msgspec.Struct):
    """Tells the executor to hand back what it has not started, and to end."""

    unstarted: queue.SimpleQueue[list[InferenceRequest]]


class Executor:
    """Takes requests in, batches them lane by lane, runs them, and hands finished batches to the outbox.

    taken: called on the executor's thread with a lane and a number of rows that left the lane's batcher.
    revoked: ids that were cancelled; looked up just before a batch runs, and after it. mark: told what runs; the
    executor's own. max_retries: how often a request is put off when its failure may pass. opened: called on the
    executor's thread with a message that `probe` was given, and that was opened.
    """

    def __init__(
        self,
        outbox: Outbox,
        taken: Callable[[Lane, int], None],
        revoked: Container[str],
        mark: RunningMark,
        max_retries: int,
        opened: Callable[[Returned], None],
    ) -> None:
        """Create the executor; `start` starts its thread."""
        self._opened = opened
        self._probing = False
        self._mark = mark
        self._max_retries = max_retries
        self._outbox = outbox
        self._taken = taken
        self._revoked = revoked
        self._arrivals: queue.SimpleQueue[list[InferenceRequest] | Returned | _Drain] = queue.SimpleQueue()
        self._lanes: list[Lane] = []
        self._turn = 0
        # Whether a batch runs, and whether another may begin: `drain` asks the one and says the other.
        self._begins = threading.Lock()
        self._running = False
        self._waiting = False
        self._draining = False
        self._drained = False
        self._thread = vital_thread("headrace-executor", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, requests: list[InferenceRequest]) -> None:
        """Hand over checked requests; any thread."""
        self._arrivals.put(requests)

    def probe(self, returned: Returned) -> None:
        """Open a message that came back, between two batches and under a mark of its own; any thread.

        After `drain` it isn't opened any more, and stays held.
        """
        self._arrivals.put(returned)

    def wake(self) -> None:
        """Look again whether a batch may leave: the outbox has room. Any thread."""
        self._arrivals.put([])

    def drain(self) -> list[InferenceRequest]:
        """Stop taking batches and give back what has not started, at once; a batch that runs goes on. Any thread."""
        if not self.is_alive:
            return []
        with self._begins:
            self._draining = True
            if self._running:
                # Nobody else looks at arrivals and batchers until the batch has ended, and after it nobody will.
                self._accept_arrived()
                return self._hand_back()
        reply: queue.SimpleQueue[list[InferenceRequest]] = queue.SimpleQueue()
        self._arrivals.put(_Drain(reply))
        return reply.get()

    @property
    def is_waiting(self) -> bool:
        """Whether it has nothing to run until something is submitted; true or just true no more."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end after `drain`; False when it still runs."""
        self._thread.join(timeout_s)
        return not self.is_alive

    def _loop(self) -> None:
        while not self._drained:
            self._receive()
            found = self._begin()
            if found is not None:
                self._run(*found)
                with self._begins:
                    self._running = False
                    self._drained = self._draining
        self._mark.clear()
        self._mark.close()

    def _begin(self) -> tuple[Lane, Batch[InferenceRequest]] | None:
        """Take the next batch; None when there is none, or none may begin."""
        with self._begins:
            if self._draining:
                return None
            now = time.monotonic()
            self._end_expired(now)
            # While Postgres is away requests stay in the batcher, where they can still expire or be put back.
            found = self._next_batch(now) if self._outbox.has_room else None
            self._running = found is not None
            return found

    def _receive(self) -> None:
        """Move arrivals into the batchers; block only while there is nothing to run."""
        timeout_s = self._idle_s()
        lingers = self._mark.stands and (timeout_s is None or timeout_s > MARK_LINGERS_S)
        self._waiting = timeout_s is None
        try:
            arrival = self._arrivals.get(timeout_s != 0, MARK_LINGERS_S if lingers else timeout_s)
        except queue.Empty:
            if lingers:
                self._mark.clear()
            return
        self._waiting = False
        self._accept(arrival)
        self._accept_arrived()
        if self._probing:
            self._probing = False
            self._mark.clear()

    def _accept_arrived(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._accept(self._arrivals.get_nowait())

    def _idle_s(self) -> float | None:
        """Give how long there is nothing to do but to wait: None for ever, 0 when a batch may leave now."""
        if not self._outbox.has_room:
            return None
        now = time.monotonic()
        wakes = [wake for lane in self._lanes if (wake := lane.batcher.wake_at(now)) is not None]
        return max(0.0, min(wakes) - now) if wakes else None

    def _accept(self, arrival: list[InferenceRequest] | Returned | _Drain) -> None:
        if isinstance(arrival, _Drain):
            self._drained = True
            arrival.unstarted.put(self._hand_back())
            return
        if isinstance(arrival, Returned):
            if not self._draining:
                self._probe(arrival)
            return
        now = time.monotonic()
        for request in arrival:
            lane = request.lane
            assert lane is not None
            if lane not in self._lanes:
                self._lanes.append(lane)
            lane.batcher.put(request_item(request, now))

    def _probe(self, returned: Returned) -> None:
        self._probing = True
        self._mark.set({returned.consumer.id: [returned.delivery.tag]})
        returned.open()
        self._opened(returned)

    def _hand_back(self) -> list[InferenceRequest]:
        unstarted: list[InferenceRequest] = []
        for lane in self._lanes:
            while (batch := lane.batcher.take(time.monotonic(), drain=True)) is not None:
                unstarted.extend(item.payload for item in batch.items)
        return unstarted

    def _next_batch(self, now: float) -> tuple[Lane, Batch[InferenceRequest]] | None:
        """Take a batch from the next lane that has one; lanes take turns."""
        for offset in range(len(self._lanes)):
            index = (self._turn + offset) % len(self._lanes)
            batch = self._lanes[index].batcher.take(now)
            if batch is not None:
                self._turn = index + 1
                return self._lanes[index], batch
        return None

    def _end_expired(self, now: float) -> None:
        for lane in self._lanes:
            expired = [item.payload for item in lane.batcher.pop_expired(now)]
            if expired:
                self._taken(lane, sum(request.rows for request in expired))
                self._end_unrun(lane, [_ended(r, State.EXPIRED, DeadlineExceeded()) for r in expired])

    def _run(self, lane: Lane, batch: Batch[InferenceRequest]) -> None:
        self._taken(lane, batch.rows)
        requests = self._wanted(lane, [item.payload for item in batch.items])
        if not requests:
            return
        self._mark.set(_by_consumer(requests))
        started_at, start = time.time(), time.perf_counter()
        try:
            verdict = self._infer(lane, requests)
        except HeadraceError as exc:
            logger.error("model can't be loaded: %r: %s", lane, exc.message)  # noqa: TRY400
            self._end_unrun(lane, [_ended(request, State.FAILED, exc) for request in requests])
            return
        seconds = time.perf_counter() - start
        rows = sum(request.rows for request in requests)
        if verdict.out_of_memory_rows is not None:
            lane.ran_out_at(verdict.out_of_memory_rows)
        elif not verdict.outcomes and not verdict.passing:
            lane.cost.observe(max(rows, batch.padded_rows), seconds)
            lane.succeeded_with(rows)
        dependence = lane.check_neighbours(verdict)
        if self._revoked:
            end_cancelled(verdict, self._revoked)
        self._outbox.put(
            FinishedBatch(
                lane=lane,
                batch_id=new_uuid(),
                rows=rows,
                reason=batch.reason,
                started_at=started_at,
                finished_at=time.time(),
                seconds=seconds,
                runs=verdict.runs,
                outcomes=verdict.outcomes,
                deferred=self._put_off(lane, verdict) if verdict.passing else [],
                dependence=dependence,
            )
        )

    def _wanted(self, lane: Lane, requests: list[InferenceRequest]) -> list[InferenceRequest]:
        """End those that were cancelled; give the others."""
        if not self._revoked:
            return requests
        cancelled = [request for request in requests if request.id in self._revoked]
        if not cancelled:
            return requests
        self._end_unrun(lane, [_ended(request, State.CANCELLED, Cancelled()) for request in cancelled])
        return [request for request in requests if request.id not in self._revoked]

    @staticmethod
    def _infer(lane: Lane, requests: list[InferenceRequest]) -> Verdict:
        try:
            model = lane.load()
        except TransientFailure as exc:
            return Verdict([], [], [(request, exc) for request in requests])
        batcher = lane.batcher
        return Runner(model, batcher.max_rows, batcher.policy.padded).run(requests)

    def _put_off(self, lane: Lane, verdict: Verdict) -> list[Deferred]:
        """Let requests whose failure may pass wait in the queue; add those that waited too often to the outcomes."""
        logger.warning("failed for now: %r, %d requests: %s", lane, len(verdict.passing), verdict.passing[0][1])
        deferred = []
        now = time.monotonic()
        for request, exc in verdict.passing:
            if request.retries >= self._max_retries:
                logger.error("given up after %d retries: request=%s: %s", request.retries, request.id, exc)
                error = given_up(exc, request.retries + 1, request.inputs, lane.signature.inputs)
                verdict.outcomes.append(_ended(request, State.FAILED, error))
            else:
                left_s = None if request.deadline is None else request.deadline - now
                delay_s = retry_delay_s(request.retries, random.random(), left_s)  # noqa: S311 — no secret
                deferred.append(Deferred(request=request, delay_s=delay_s))
        return deferred

    def _end_unrun(self, lane: Lane, outcomes: list[Outcome]) -> None:
        self._outbox.put(not_run(lane, outcomes))


def request_item(request: InferenceRequest, now: float) -> Item[InferenceRequest]:
    """Wrap a request for the batcher."""
    lane = request.lane
    assert lane is not None
    if request.deaths:
        # A bucket of its own: nobody shares a batch with a request that was running when a worker died.
        return Item(request, request.rows, SUSPECT_PRIORITY, request.deadline, now, request)
    return Item(request, request.rows, request.priority, request.deadline, now, lane.bucket_of(request.inputs))


def not_run(lane: Lane | None, outcomes: list[Outcome]) -> FinishedBatch:
    """Bundle requests that end without a model."""
    now = time.time()
    return FinishedBatch(
        lane=lane,
        batch_id=None,
        rows=sum(outcome.request.rows for outcome in outcomes),
        reason=NOT_RUN,
        started_at=now,
        finished_at=now,
        seconds=0.0,
        runs=[],
        outcomes=outcomes,
    )


def postponed(request: InferenceRequest, delay_s: float) -> FinishedBatch:
    """Bundle a request whose time has not come."""
    batch = not_run(None, [])
    batch.deferred = [Deferred(request=request, delay_s=delay_s, is_retry=False)]
    batch.rows = 1
    return batch


def answered(known: list[Known]) -> FinishedBatch:
    """Bundle requests that had ended before they were delivered again."""
    batch = not_run(None, [])
    batch.known = known
    batch.rows = len(known)
    return batch


def _by_consumer(requests: list[InferenceRequest]) -> dict[str, list[str]]:
    """Give the tags of requests by who holds them: nearly always one consumer, two after a reconnection."""
    first = requests[0].consumer
    tags = [request.tag for request in requests if request.consumer is first]
    found = {first.id: tags}
    if len(tags) < len(requests):
        for request in requests:
            if request.consumer is not first:
                found.setdefault(request.consumer.id, []).append(request.tag)
    return found


def _ended(request: InferenceRequest, state: State, error: HeadraceError) -> Outcome:
    return Outcome(request=request, state=state, error=error)
