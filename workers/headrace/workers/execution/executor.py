"""The executor: one thread that owns the models and their batchers, and runs one batch after the other."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final, TypeAlias

import msgspec

from headrace.contracts import Cancelled, DeadlineExceeded, HeadraceError, State
from headrace.contracts.ids import new_uuid
from headrace.queueing import RunningMarker
from headrace.workers.batching import Batch
from headrace.workers.batching.prefetch import Running, goes_back
from headrace.workers.execution.cancellation import end_cancelled
from headrace.workers.execution.runner import Runner, Verdict
from headrace.workers.execution.suspects import is_suspect, request_item
from headrace.workers.execution.turns import Turns
from headrace.workers.models.loading import Loaded, Loader
from headrace.workers.models.served_model import Lane
from headrace.workers.outbox.finished import ended, not_run, postponed, put_off
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.fatal_thread import vital_thread
from headrace.workers.redelivery.quarantine import Returned
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome, tags_by_consumer

logger = logging.getLogger(__name__)

#: How long the mark of what ran stays when nothing follows: were it taken away at once, a lone request would wait for
#: that, since its row is stored at the same time. Of what is acknowledged by then a mark says nothing any more.
MARK_LINGERS_S: Final = 0.01

#: While a model is loaded, its requests are looked through for expired ones so often.
LOADING_LOOK_S: Final = 1.0

#: What is beyond one batch for a model that is being loaded waits in the server for so long, where a worker that has it
#: loaded finds it; short beside a load.
ELSEWHERE_S: Final = 1.0


class _Drain(msgspec.Struct):
    """Tells the executor to hand back what it has not started, and to end."""

    unstarted: queue.SimpleQueue[list[InferenceRequest]]


Arrival: TypeAlias = list[InferenceRequest] | Returned | Loaded | _Drain


class Listener(msgspec.Struct):
    """What is told of what happens, on the executor's thread.

    taken: so many rows, of requests of so many bytes, have left the batcher of a lane. opened: a message that `probe`
    was given was opened. held_up: what waits for the model will have to wait for long. free: a long batch has ended.
    """

    taken: Callable[[Lane, int, int], None]
    opened: Callable[[Returned], None]
    held_up: Callable[[], None]
    free: Callable[[], None]


class Executor:
    """Takes requests in, batches them lane by lane, runs them, and hands finished batches to the outbox.

    A model that isn't loaded yet is loaded by a thread of its own, while the batches of others go on.

    revoked: ids that were cancelled; looked up just before a batch runs, and after it. mark: told what runs; the
    executor's own. max_retries: how often a request is put off when its failure may pass.
    """

    def __init__(
        self,
        outbox: Outbox,
        revoked: Container[str],
        mark: RunningMarker,
        max_retries: int,
        listener: Listener,
    ) -> None:
        """Create the executor; `start` starts its thread."""
        self._listener = listener
        self._probing = False
        self._mark = mark
        self._max_retries = max_retries
        self._outbox = outbox
        self._revoked = revoked
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._lanes: list[Lane] = []
        self._turns = Turns(self._lanes, outbox.has_room_for)
        self._loader = Loader(self._arrivals.put)
        # What runs, and whether another batch may begin: `drain` asks the one and says the other.
        self._begins = threading.Lock()
        #: The batch that runs; written by the executor's thread.
        self.running: Running | None = None
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
            if self.running is not None:
                # Nobody else looks at arrivals and batchers until the batch has ended, and after it nobody will.
                self._accept_arrived()
                return self._hand_back()
        reply: queue.SimpleQueue[list[InferenceRequest]] = queue.SimpleQueue()
        self._arrivals.put(_Drain(reply))
        return reply.get()

    def take_back(self) -> list[InferenceRequest]:
        """Return what waits for the model behind the batch that runs, and forget it; nothing if none runs. Any thread.

        Left are suspects, which run after all others: if they went back each time, they never would; and requests whose
        model is being loaded, which wait for that.
        """
        with self._begins:
            if self.running is None or self._draining:
                return []
            arrivals = self._emptied()
            back = [
                item.payload
                for lane in self._lanes
                for item in lane.batcher.remove(lambda item: not is_suspect(item.payload))
            ]
            for arrival in arrivals:
                if not isinstance(arrival, list):
                    self._arrivals.put(arrival)
                    continue
                back += [request for request in arrival if not is_suspect(request)]
                if kept := [request for request in arrival if is_suspect(request)]:
                    self._arrivals.put(kept)
            return back

    def _emptied(self) -> list[Arrival]:
        arrivals = []
        with suppress(queue.Empty):
            while True:
                arrivals.append(self._arrivals.get_nowait())
        return arrivals

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._loader.is_busy

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
                self._end()
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
            found = self._turns.take(now) if self._outbox.has_room else None
            if found is None:
                return None
            lane, batch = found
            self.running = Running(now, lane.cost.predict(max(batch.rows, batch.padded_rows)) or math.inf)
        if goes_back(self.running.seconds):
            self._listener.held_up()
        return found

    def _end(self) -> None:
        running = self.running
        assert running is not None
        with self._begins:
            self.running = None
            self._drained = self._draining
        if running.held_up_others(time.monotonic()):
            self._listener.free()

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
        if self._turns.blocked or not self._outbox.has_room:
            return None
        now = time.monotonic()
        wakes = [wake for lane in self._lanes if (wake := lane.batcher.wake_at(now)) is not None]
        if self._loader.lanes:
            wakes.append(now + LOADING_LOOK_S)
        return max(0.0, min(wakes) - now) if wakes else None

    def _accept(self, arrival: Arrival) -> None:
        if isinstance(arrival, _Drain):
            self._drained = True
            arrival.unstarted.put(self._hand_back())
            return
        if isinstance(arrival, Returned):
            if not self._draining:
                self._probe(arrival)
            return
        if isinstance(arrival, Loaded):
            self._loaded(arrival)
            return
        now = time.monotonic()
        for request in arrival:
            lane = request.lane
            assert lane is not None
            if not lane.loaded:
                self._park(lane, request, now)
                continue
            if lane not in self._lanes:
                self._lanes.append(lane)
            lane.batcher.put(request_item(request, now))

    def _park(self, lane: Lane, request: InferenceRequest, now: float) -> None:
        """Keep a request until its model is loaded; what is beyond a batch waits where other workers find it."""
        if not self._draining:
            self._loader.load(lane)
        if lane.parked_rows >= lane.batcher.max_rows:
            self._listener.taken(lane, request.rows, request.size_bytes)
            self._outbox.put(postponed(request, ELSEWHERE_S))
            return
        lane.batcher.put(request_item(request, now))
        lane.parked_rows = lane.batcher.rows_waiting

    def _loaded(self, loaded: Loaded) -> None:
        """Let the requests of a model run that is loaded now, or end as its failure says."""
        lane = loaded.lane
        self._loader.lanes.remove(lane)
        failure = loaded.failure
        if failure is None:
            self._lanes.append(lane)
            lane.parked_rows = 0
            return
        requests = [item.payload for item in lane.batcher.remove(lambda _: True)]
        self._listener.taken(lane, *_sizes(requests))
        lane.parked_rows = 0
        if isinstance(failure, HeadraceError):
            self._end_unrun(lane, [ended(request, State.FAILED, failure) for request in requests])
            return
        verdict = Verdict([], [], [(request, failure) for request in requests])
        deferred = put_off(lane, verdict, self._max_retries)
        batch = not_run(lane, verdict.outcomes)
        batch.deferred, batch.rows = deferred, sum(request.rows for request in requests)
        self._outbox.put(batch)

    def _probe(self, returned: Returned) -> None:
        self._probing = True
        self._mark.set({returned.consumer.id: [returned.delivery.tag]})
        returned.open()
        self._listener.opened(returned)

    def _hand_back(self) -> list[InferenceRequest]:
        unstarted: list[InferenceRequest] = []
        for lane in (*self._lanes, *self._loader.lanes):
            while (batch := lane.batcher.take(time.monotonic(), drain=True)) is not None:
                unstarted.extend(item.payload for item in batch.items)
        return unstarted

    def _end_expired(self, now: float) -> None:
        for lane in (*self._lanes, *self._loader.lanes):
            expired = [item.payload for item in lane.batcher.pop_expired(now)]
            if expired:
                self._listener.taken(lane, *_sizes(expired))
                if not lane.loaded:
                    lane.parked_rows = lane.batcher.rows_waiting
                self._end_unrun(lane, [ended(r, State.EXPIRED, DeadlineExceeded()) for r in expired])

    def _run(self, lane: Lane, batch: Batch[InferenceRequest]) -> None:
        taken = [item.payload for item in batch.items]
        self._listener.taken(lane, *_sizes(taken))
        requests = self._wanted(lane, taken)
        if not requests:
            return
        self._mark.set(tags_by_consumer(requests))
        started_at, start = time.time(), time.perf_counter()
        verdict = self._infer(lane, requests)
        seconds = time.perf_counter() - start
        rows, _ = _sizes(requests)
        if verdict.out_of_memory_rows is not None:
            lane.ran_out_at(verdict.out_of_memory_rows)
        elif not verdict.outcomes and not verdict.passing:
            lane.cost.observe(max(rows, batch.padded_rows), seconds)
            lane.succeeded_with(rows)
        dependence = lane.check_neighbours(verdict)
        if self._revoked:
            end_cancelled(verdict, self._revoked)
        output_bytes = self._outbox.put(
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
                deferred=put_off(lane, verdict, self._max_retries) if verdict.passing else [],
                dependence=dependence,
            )
        )
        lane.output_bytes_per_row = output_bytes / rows

    def _wanted(self, lane: Lane, requests: list[InferenceRequest]) -> list[InferenceRequest]:
        """End those that were cancelled; give the others."""
        if not self._revoked:
            return requests
        cancelled = [request for request in requests if request.id in self._revoked]
        if not cancelled:
            return requests
        self._end_unrun(lane, [ended(request, State.CANCELLED, Cancelled()) for request in cancelled])
        return [request for request in requests if request.id not in self._revoked]

    @staticmethod
    def _infer(lane: Lane, requests: list[InferenceRequest]) -> Verdict:
        batcher = lane.batcher
        return Runner(lane.model, batcher.max_rows, batcher.policy.padded).run(requests)

    def _end_unrun(self, lane: Lane, outcomes: list[Outcome]) -> None:
        self._outbox.put(not_run(lane, outcomes))


def _sizes(requests: list[InferenceRequest]) -> tuple[int, int]:
    """Return the rows and the bytes of requests."""
    return sum([request.rows for request in requests]), sum([request.size_bytes for request in requests])
