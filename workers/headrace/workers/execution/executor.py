"""The executor: one thread that owns the models and their batchers, and runs one batch after the other."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

import msgspec

from headrace.contracts import DeadlineExceeded, HeadraceError, State
from headrace.contracts.ids import new_uuid
from headrace.workers.batching import Batch
from headrace.workers.batching.prefetch import Running, goes_back
from headrace.workers.execution.background import Background, NoBackground
from headrace.workers.execution.in_flight import InFlight
from headrace.workers.execution.isolation import is_isolated, request_item
from headrace.workers.execution.layers.backoff import defer
from headrace.workers.execution.layers.base import BatchContext, Services
from headrace.workers.execution.pipeline import build_pipeline
from headrace.workers.execution.running import RunningMessages
from headrace.workers.execution.turns import Turns
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.loading import Loaded, Loader
from headrace.workers.models.served_model import ServedModel
from headrace.workers.outbox.finished import ended, not_run, postponed
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.fatal_thread import fatal_thread
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome

logger = logging.getLogger(__name__)

#: Delay before the marker of an idle worker is cleared; clearing it at once would delay a lone request, whose row is
#: stored at the same time. Stale markers of acknowledged messages are harmless.
MARK_LINGERS_S: Final = 0.01

#: While a model is loaded, its requests are looked through for expired ones so often.
LOADING_LOOK_S: Final = 1.0

#: Requests beyond one batch of a model that is being loaded wait in the server for this long, where a worker that has
#: loaded it finds them; short beside a load.
ELSEWHERE_S: Final = 1.0


class Probe(Protocol):
    """A redelivered message whose decoding may crash the process."""

    @property
    def consumer_id(self) -> str:
        """The consumer that holds it."""
        ...

    @property
    def tag(self) -> str:
        """Its tag there."""
        ...

    def open(self) -> None:
        """Decode the message."""
        ...

    def opened(self) -> None:
        """Go on after `open`; called when the message no longer counts as running."""
        ...


class _Drain(msgspec.Struct):
    """An order to hand back what has not started, and to end."""

    unstarted: queue.SimpleQueue[list[InferenceRequest]]


class _Opening(msgspec.Struct):
    """An order to decode a message."""

    probe: Probe


Arrival: TypeAlias = list[InferenceRequest] | _Opening | Loaded | _Drain


class Listener(msgspec.Struct):
    """Callbacks on the executor's thread.

    taken: rows, of requests of this many bytes, left the batcher of a model. held_up: requests that wait for the model
    will wait for long. free: a long batch has ended.
    """

    taken: Callable[[ServedModel, int, int], None]
    held_up: Callable[[], None]
    free: Callable[[], None]


class Executor:
    """Takes requests in, batches them by model, runs the batches, and hands the finished ones to the outbox.

    One batch runs at a time, but for models that allow several in flight. A model that isn't loaded yet is loaded by a
    thread of its own, while the batches of others go on.
    """

    def __init__(
        self,
        outbox: Outbox,
        running: RunningMessages,
        listener: Listener,
        *,
        revoked: Container[str],
        max_retries: int,
        check_every: int,
    ) -> None:
        """Create the executor; `start` starts its thread. revoked, max_retries, check_every: as in `Services`."""
        self._listener = listener
        #: Work for the time in which no online request waits.
        self.background: Background = NoBackground()
        self._probing = False
        self._marker = running
        self._max_retries = max_retries
        self._outbox = outbox
        self._pipeline = build_pipeline(
            Services(
                revoked=revoked,
                marker=running,
                end=self._end_unrun,
                max_retries=max_retries,
                check_every=check_every,
            )
        )
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._models: list[ServedModel] = []
        self._in_flight = InFlight(self._run, self.wake)
        self._turns = Turns(self._models, self._in_flight.has_room_for, outbox.has_room_for)
        self._loader = Loader(self._arrivals.put)
        # Guards `running`, and whether another batch may begin, against `drain` and `take_back`.
        self._begins = threading.Lock()
        #: The batch that runs and keeps all others waiting; written by the executor's thread.
        self.running: Running | None = None
        self._waiting = False
        self._draining = False
        self._drained = False
        self._thread = fatal_thread("headrace-executor", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, requests: list[InferenceRequest]) -> None:
        """Hand over checked requests; any thread."""
        self._arrivals.put(requests)

    def probe(self, message: Probe) -> None:
        """Decode a redelivered message, between two batches and under a marker of its own; any thread.

        After `drain` it isn't decoded any more, and stays held.
        """
        self._arrivals.put(_Opening(message))

    def wake(self) -> None:
        """Check again whether a batch may leave, because the outbox has room or a batch in flight ended. Any thread."""
        self._arrivals.put([])

    def drain(self) -> list[InferenceRequest]:
        """Stop taking batches and return what has not started, at once; batches that run go on. Any thread."""
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
        """Remove and return the requests that wait behind the batch that runs; none if nothing runs. Any thread.

        Left are isolated requests, which run after all others: if they went back each time, they never would; and
        requests whose model is being loaded, which wait for that.
        """
        with self._begins:
            if self.running is None or self._draining:
                return []
            arrivals = self._emptied()
            back = [
                item.payload
                for served in self._models
                for item in served.batcher.remove(lambda item: not is_isolated(item.payload))
            ]
            for arrival in arrivals:
                if not isinstance(arrival, list):
                    self._arrivals.put(arrival)
                    continue
                back += [request for request in arrival if not is_isolated(request)]
                if kept := [request for request in arrival if is_isolated(request)]:
                    self._arrivals.put(kept)
            return back

    def _emptied(self) -> list[Arrival]:
        arrivals = []
        with suppress(queue.Empty):
            while True:
                arrivals.append(self._arrivals.get_nowait())
        return arrivals

    @property
    def has_arrivals(self) -> bool:
        """Whether something was handed over that the thread has not taken yet; any thread."""
        return not self._arrivals.empty()

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
                self._start(*found)
            elif self.background.ready:
                self._run_background()
        self._in_flight.join()
        self._marker.close()

    def _begin(self) -> tuple[ServedModel, Batch[InferenceRequest]] | None:
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
            served, batch = found
            if served.concurrent:
                return found
            self.running = Running(now, served.cost.predict(max(batch.rows, batch.padded_rows)) or math.inf)
        if goes_back(self.running.seconds):
            self._listener.held_up()
        return found

    def _run_background(self) -> None:
        """Run a batch of background work; what comes meanwhile waits for that one batch."""
        with self._begins:
            now = time.monotonic()
            batch = None if self._draining else self.background.take(now)
            if batch is None:
                return
            self.running = Running(now, batch.seconds)
        if goes_back(self.running.seconds):
            self._listener.held_up()
        batch.run()
        self._end()

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
        lingers = self._marker.is_stale and (timeout_s is None or timeout_s > MARK_LINGERS_S)
        self._waiting = timeout_s is None
        try:
            arrival = self._arrivals.get(timeout_s != 0, MARK_LINGERS_S if lingers else timeout_s)
        except queue.Empty:
            if lingers:
                self._marker.clear()
            return
        self._waiting = False
        self._accept(arrival)
        self._accept_arrived()
        if self._probing:
            self._probing = False
            self._marker.clear()

    def _accept_arrived(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._accept(self._arrivals.get_nowait())

    def _idle_s(self) -> float | None:
        """Return how long there is nothing to do but to wait: None for ever, 0 when a batch may leave now."""
        if self.background.ready:
            return 0.0
        if self._turns.blocked or not self._outbox.has_room:
            return None
        now = time.monotonic()
        wake = self._turns.wakes_at(now)
        if self._loader.loading:
            wake = now + LOADING_LOOK_S if wake is None else min(wake, now + LOADING_LOOK_S)
        return None if wake is None else max(0.0, wake - now)

    def _accept(self, arrival: Arrival) -> None:
        if isinstance(arrival, _Drain):
            self._drained = True
            arrival.unstarted.put(self._hand_back())
            return
        if isinstance(arrival, _Opening):
            if not self._draining:
                self._open(arrival.probe)
            return
        if isinstance(arrival, Loaded):
            self._loaded(arrival)
            return
        now = time.monotonic()
        for request in arrival:
            served: ServedModel = request.served  # type: ignore[assignment]  # where the intake found it
            if not served.loaded:
                self._park(served, request, now)
                continue
            if served not in self._models:
                self._models.append(served)
            served.batcher.put(request_item(request, now))

    def _park(self, served: ServedModel, request: InferenceRequest, now: float) -> None:
        """Keep a request until its model is loaded; what is beyond a batch waits where other workers find it."""
        if not self._draining:
            self._loader.load(served)
        if served.parked_rows >= served.batcher.max_rows:
            self._listener.taken(served, request.rows, request.size_bytes)
            self._outbox.put(postponed(request, ELSEWHERE_S))
            return
        served.batcher.put(request_item(request, now))
        served.parked_rows = served.batcher.rows_waiting

    def _loaded(self, loaded: Loaded) -> None:
        """Let the requests of a model run that is loaded now, or end as its failure says."""
        served = loaded.served
        self._loader.loading.remove(served)
        failure = loaded.failure
        if failure is None:
            self._models.append(served)
            served.parked_rows = 0
            return
        requests = [item.payload for item in served.batcher.remove(lambda _: True)]
        self._listener.taken(served, *_sizes(requests))
        served.parked_rows = 0
        if isinstance(failure, HeadraceError):
            self._end_unrun(served, [ended(request, State.FAILED, failure) for request in requests])
            return
        verdict = Verdict([], [], [(request, failure) for request in requests])
        defer(served, verdict, self._max_retries)
        batch = not_run(served, verdict.outcomes)
        batch.deferred, batch.rows = verdict.deferred, sum(request.rows for request in requests)
        self._outbox.put(batch)

    def _open(self, probe: Probe) -> None:
        self._probing = True
        tags = {probe.consumer_id: [probe.tag]}
        self._marker.begin(tags)
        probe.open()
        self._marker.end(tags)
        probe.opened()

    def _hand_back(self) -> list[InferenceRequest]:
        unstarted: list[InferenceRequest] = []
        for served in (*self._models, *self._loader.loading):
            while (batch := served.batcher.take(time.monotonic(), drain=True)) is not None:
                unstarted.extend(item.payload for item in batch.items)
        return unstarted

    def _end_expired(self, now: float) -> None:
        for served in (*self._models, *self._loader.loading):
            expired = [item.payload for item in served.batcher.pop_expired(now)]
            if expired:
                self._listener.taken(served, *_sizes(expired))
                if not served.loaded:
                    served.parked_rows = served.batcher.rows_waiting
                self._end_unrun(served, [ended(r, State.EXPIRED, DeadlineExceeded()) for r in expired])

    def _start(self, served: ServedModel, batch: Batch[InferenceRequest]) -> None:
        requests = [item.payload for item in batch.items]
        rows, size_bytes = _sizes(requests)
        self._listener.taken(served, rows, size_bytes)
        context = BatchContext(
            served=served, requests=requests, rows=rows, padded_rows=batch.padded_rows, reason=batch.reason
        )
        if served.concurrent:
            self._in_flight.start(context)
        else:
            self._run(context)
            assert self.running is not None
            now = time.monotonic()
            self.background.online(now, now - self.running.began)
            self._end()

    def _run(self, batch: BatchContext) -> None:
        """Take a batch through the layers to its model, and hand what came of it to the outbox."""
        verdict = self._pipeline(batch)
        if verdict.is_empty:
            return
        output_bytes = self._outbox.put(
            FinishedBatch(
                served=batch.served,
                batch_id=new_uuid(),
                rows=verdict.rows,
                reason=batch.reason,
                started_at=verdict.started_at,
                finished_at=time.time(),
                seconds=verdict.seconds,
                runs=verdict.runs,
                outcomes=verdict.outcomes,
                deferred=verdict.deferred,
                dependence=verdict.dependence,
            )
        )
        batch.served.output_bytes_per_row = output_bytes / max(verdict.rows, 1)

    def _end_unrun(self, served: ServedModel, outcomes: list[Outcome]) -> None:
        self._outbox.put(not_run(served, outcomes))


def _sizes(requests: list[InferenceRequest]) -> tuple[int, int]:
    """Return the rows and the bytes of requests."""
    return sum([request.rows for request in requests]), sum([request.size_bytes for request in requests])
