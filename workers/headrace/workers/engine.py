"""The engine: everything between Celery's consumer and the store, put together and taken down in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Container
from typing import Final

import psycopg

from headrace.contracts import ModelDirectory, Settings
from headrace.queueing import ClaimingConsumer, RunningMark, connect_to
from headrace.results_store import StoreReader, StoreWriter, address, check_schema, ensure_partitions
from headrace.workers.ceilings import Ceilings
from headrace.workers.executor import Executor, answered, not_run, postponed
from headrace.workers.lane import Lane, Lanes
from headrace.workers.monitor import Monitor
from headrace.workers.outbox import Outbox
from headrace.workers.probation import Returned
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome
from headrace.workers.resolver import Resolved, Resolver
from headrace.workers.right_of_way import FEW, RightOfWay

logger = logging.getLogger(__name__)

#: Requests for this many full batches are claimed ahead; more would keep them from other workers.
BATCHES_AHEAD: Final = 2

#: How often a worker that finishes what runs looks whether it was told to leave at once; a look costs microseconds.
HURRY_LOOK_S: Final = 0.1

#: After the grace period the outbox has this long to commit what the last batch left.
FLUSH_S: Final = 5.0


class Engine:
    """One worker process's engine. The main thread admits and asks for room; executor and outbox have their own."""

    def __init__(self, settings: Settings, *, worker: str, revoked: Container[str]) -> None:
        """worker: the Celery node name, stored with each row. revoked: the ids that were cancelled."""
        self.settings = settings
        self.models = ModelDirectory(settings.models)
        self._client = connect_to(settings)
        mark = RunningMark(self._client, worker)
        self._ceilings = Ceilings(settings.device, mark)
        self.lanes = Lanes(
            self.models,
            device=settings.device,
            threads=settings.threads,
            ceilings=self._ceilings,
            check_every=settings.check_every,
        )
        self.monitor = Monitor(settings.events_per_s)
        #: Runs a function on the main thread soon; set while Celery's event loop runs.
        self.call_soon: Callable[[Callable[[], None]], None] | None = None
        #: Makes the transport claim at once; set while there is a consumer.
        self.claim_soon: Callable[[], None] | None = None
        self._way = RightOfWay()
        self._outbox = Outbox(
            StoreWriter(settings.require_database_url(), leaving=self._way.make_free),
            self._client,
            settings,
            worker=worker,
            settled=self._on_settled,
            room=self._on_room,
        )
        self._executor = Executor(self._outbox, self._on_taken, revoked, mark, settings.max_retries, self._on_opened)
        self._resolver = Resolver(
            StoreReader(settings.require_database_url(), pool_size=1),
            max_deliveries=settings.max_deliveries,
            resolved=self._on_resolved,
        )
        self._arrived: list[InferenceRequest] = []
        self._opened: deque[Returned] = deque()
        # By queue: rows and requests admitted (main thread) and taken for running (executor); no lock: one writer each.
        self._admitted: dict[str, list[int]] = {}
        self._taken: dict[str, list[int]] = {}
        self._closed = False

    def start(self) -> None:
        """Check the store, load the models and start the threads. Raises HeadraceError with cause and remedy."""
        check_schema(self.settings.require_database_url())
        self.keep_partitions()
        self._ceilings.load(self._client)
        self.lanes.load_newest()
        self._outbox.start()
        self._resolver.start()
        self._executor.start()

    def keep_partitions(self) -> None:
        """Make the partitions of the coming days; rows of a day without one go to the default partition meanwhile."""
        try:
            with address.connect(self.settings.require_database_url()) as connection:
                ensure_partitions(connection)
        except psycopg.Error as exc:
            logger.warning("partitions of the coming days were not made; trying again later: %s", type(exc).__name__)

    def admit(self, request: InferenceRequest) -> None:
        """Take a checked request; it is handed to the executor together with the others of this claim."""
        self._count(request, 1)
        self._gather(request)

    def resolve(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        """Take a request that was delivered before: it runs, or ends as `ending` says, only if it has no row."""
        if request.rows:
            self._count(request, 1)
        self._resolver.ask(request, ending)

    def postpone(self, request: InferenceRequest, delay_s: float) -> None:
        """Let a request whose time has not come wait in the server, where any worker finds it."""
        self._outbox.put(postponed(request, delay_s))

    def probe(self, returned: Returned) -> None:
        """Have a message that came back opened by the executor; then it goes on, on the main thread."""
        self._count_unopened(returned, 1)
        self._executor.probe(returned)

    def _count_unopened(self, returned: Returned, sign: int) -> None:
        """Let a message that waits to be opened take a row's place in the window."""
        counts = self._admitted.setdefault(returned.delivery.queue, [0, 0])
        counts[0] += sign
        counts[1] += sign

    def _on_opened(self, returned: Returned) -> None:
        """On the executor's thread: go on with this message on the main thread, after those opened before."""
        self._opened.append(returned)
        if self.call_soon is not None:
            self.call_soon(self._let_go_on)

    def _let_go_on(self) -> None:
        while self._opened and not self._closed:
            returned = self._opened.popleft()
            self._count_unopened(returned, -1)
            returned.go_on()

    def _gather(self, request: InferenceRequest) -> None:
        if not self._arrived and self.call_soon is not None:
            self.call_soon(self._flush)
        self._arrived.append(request)

    def _count(self, request: InferenceRequest, sign: int) -> None:
        assert request.lane is not None
        counts = self._admitted.setdefault(request.lane.queue, [0, 0])
        counts[0] += sign * request.rows
        counts[1] += sign

    def end(self, outcome: Outcome) -> None:
        """End a request that never reaches a model."""
        self._outbox.put(not_run(outcome.request.lane, [outcome]))

    def room(self, queue: str) -> int:
        """Give how many requests may be claimed now from a queue: what the next batches need, and no more."""
        if self._closed or not self._outbox.available or not self._outbox.has_room:
            return 0
        admitted_rows, admitted = self._admitted.get(queue, (0, 0))
        taken_rows, _ = self._taken.get(queue, (0, 0))
        wanted_rows = BATCHES_AHEAD * self._max_rows(queue) - (admitted_rows - taken_rows)
        rows_per_request = max(1.0, admitted_rows / admitted) if admitted else 1.0
        return max(0, -int(-wanted_rows // rows_per_request))

    def drain(self, grace_s: float, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop: put back what has not started, finish what runs within `grace_s`, store it, end the threads.

        hurried: whether to leave at once after all; what is not done then comes back with the lease.
        """
        if self._closed:
            return
        self._closed = True
        self._flush()
        deadline = time.monotonic() + grace_s
        self._resolver.close(FLUSH_S)
        unstarted = self._executor.drain()
        _release(unstarted)
        if unstarted:
            logger.info("put back %d requests that had not started", len(unstarted))
        if not _ends(self._executor.join, deadline, hurried):
            why = "told to leave at once" if hurried() else f"after {grace_s:.0f} s of grace"
            # Its model stays open: closing it under a batch would crash.
            logger.warning("a batch still ran %s; its requests will be delivered again", why)
            return
        self._outbox.stop()
        if not _ends(self._outbox.join, max(deadline, time.monotonic() + FLUSH_S), hurried):
            self._outbox.give_up()
            logger.warning("results could not be stored in time; their requests will be delivered again")
        self.lanes.close()

    @property
    def is_busy(self) -> bool:
        """Whether a batch still runs, or might."""
        return self._executor.is_alive

    def _max_rows(self, queue: str) -> int:
        return max((lane.max_rows for lane in self.lanes.all() if lane.queue == queue), default=1)

    def _flush(self) -> None:
        if not self._arrived:
            return
        requests, self._arrived = self._arrived, []
        if len(requests) <= FEW and self._executor.is_waiting:
            self._way.give(lambda: self._executor.submit(requests))
        else:
            self._executor.submit(requests)
        self.monitor.received(requests)

    def _on_taken(self, lane: Lane, rows: int) -> None:
        """On the executor's thread: rows left a batcher, so there is room for more."""
        counts = self._taken.setdefault(lane.queue, [0, 0])
        counts[0] += rows
        claim_soon = self.claim_soon
        if claim_soon is not None:
            claim_soon()

    def _on_room(self) -> None:
        """On the outbox's thread: the executor may go on, and claiming with it."""
        self._executor.wake()
        claim_soon = self.claim_soon
        if claim_soon is not None:
            claim_soon()

    def _on_resolved(self, resolved: Resolved) -> None:
        """On the resolver's thread: go on with these requests on the main thread."""
        if self.call_soon is not None:
            self.call_soon(lambda: self._resume(resolved))

    def _resume(self, resolved: Resolved) -> None:
        if self._closed:
            return  # they are still held, and go back with the consumer
        for request in resolved.to_run:
            self._gather(request)
        for outcome in (*resolved.poison, *resolved.ended):
            if outcome.request.rows:
                self._count(outcome.request, -1)
                self.monitor.received([outcome.request])
            self.end(outcome)
        if resolved.known:
            for known in resolved.known:
                if known.request.rows:
                    self._count(known.request, -1)
            logger.info("answered %d redelivered requests from their rows", len(resolved.known))
            self._outbox.put(answered(resolved.known))
        self._on_room()

    def _on_settled(self, batches: list[FinishedBatch]) -> None:
        """On the outbox's thread: tell the monitor on the main thread."""
        if self.call_soon is not None:
            self.call_soon(lambda: self.monitor.settled(batches))


def _release(requests: list[InferenceRequest]) -> None:
    by_consumer: dict[ClaimingConsumer, list[str]] = {}
    for request in requests:
        by_consumer.setdefault(request.consumer, []).append(request.tag)
    for consumer, tags in by_consumer.items():
        consumer.release(tags)


def _ends(join: Callable[[float], bool], deadline: float, hurried: Callable[[], bool]) -> bool:
    """Wait for a thread until a monotonic time, or until there is no more time; False when it still runs."""
    while not join(min(max(0.0, deadline - time.monotonic()), HURRY_LOOK_S)):
        if hurried() or time.monotonic() >= deadline:
            return False
    return True
