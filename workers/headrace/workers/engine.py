"""The engine: everything between Celery's consumer and the store, put together and taken down in order."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Container
from typing import Final

import psycopg

from headrace.contracts import BrokerUnavailable, ModelDirectory, Settings
from headrace.queueing import ClaimingConsumer, RunningMarker, broken_preconditions, connect_to, translate_errors
from headrace.queueing.consumer.serving import Served
from headrace.results_store import StoreReader, StoreWriter, check_schema, ensure_partitions
from headrace.results_store.database import address
from headrace.results_store.database.errors import READ_ONLY_HINT, StoreBusy
from headrace.results_store.writing.partitions import is_read_only
from headrace.workers.batching import prefetch
from headrace.workers.events.celery_events import Monitor
from headrace.workers.execution.executor import Executor, Listener
from headrace.workers.execution.suspects import is_suspect
from headrace.workers.intake.window import Window
from headrace.workers.models.batch_limit_store import Ceilings
from headrace.workers.models.served_model import Lane, Lanes
from headrace.workers.outbox.finished import answered, not_run, postponed
from headrace.workers.outbox.outbox import RETRY_S, Outbox
from headrace.workers.process.gil_handoff import FEW, RightOfWay
from headrace.workers.redelivery.lookup import Resolved, Resolver
from headrace.workers.redelivery.quarantine import Returned
from headrace.workers.request import FinishedBatch, InferenceRequest, Outcome

logger = logging.getLogger(__name__)

#: While anything waits for the model, the main thread looks so often whether it has to wait too long; a look costs some
#: microseconds.
WATCH_S: Final = 0.05

#: Timers are no more exact than this.
TIMER_S: Final = 0.001

#: How often a worker that finishes what runs looks whether it was told to leave at once; a look costs microseconds.
HURRY_LOOK_S: Final = 0.1

#: After the grace period the outbox has this long to commit what the last batch left; servers that say nothing must not
#: hold up the end of the process for longer.
FLUSH_S: Final = 0.8


class Engine:
    """One worker process's engine. The main thread admits and asks for room; executor and outbox have their own."""

    def __init__(self, settings: Settings, *, worker: str, revoked: Container[str]) -> None:
        """worker: the Celery node name, stored with each row. revoked: the ids that were cancelled."""
        self.settings = settings
        self.models = ModelDirectory(settings.models)
        self._client = connect_to(settings)
        mark = RunningMarker(self._client, worker)
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
        #: The same after some seconds.
        self.call_later: Callable[[float, Callable[[], None]], object] | None = None
        #: Makes the transport claim at once; set while there is a consumer.
        self.claim_soon: Callable[[], None] | None = None
        self._way = RightOfWay()
        self._outbox = Outbox(
            StoreWriter(
                settings.require_database_url(), leaving=self._way.make_free, timeout_s=settings.database_timeout_s
            ),
            self._client,
            settings,
            worker=worker,
            settled=self._on_settled,
            room=self._on_room,
        )
        listener = Listener(self._on_taken, self._on_opened, self._on_held_up, self._claim_soon)
        self._executor = Executor(self._outbox, revoked, mark, settings.max_retries, listener)
        self._window = Window(self.lanes, lambda: self._executor.running, settings.claimed_bytes)
        self._resolver = Resolver(
            StoreReader(settings.require_database_url(), pool_size=1, timeout_s=settings.database_timeout_s),
            max_deliveries=settings.max_deliveries,
            resolved=self._on_resolved,
        )
        self._arrived: list[InferenceRequest] = []
        self._opened: deque[Returned] = deque()
        self._looks_at = 0.0
        self._opens_at = 0.0
        self._closed = False

    def start(self) -> None:
        """Check the store, load the models and start the threads. Raises HeadraceError with cause and remedy."""
        self._check_store()
        self.keep_partitions()
        self._ceilings.load(self._client)
        self._check_broker()
        self.lanes.load_newest()
        self._outbox.start()
        self._resolver.start()
        self._executor.start()

    def _check_store(self) -> None:
        """Check the schema, however long Postgres has no connection to spare; SIGTERM still ends the process here."""
        told = False
        while True:
            try:
                check_schema(self.settings.require_database_url())
            except StoreBusy as exc:
                if not told:
                    told = True
                    logger.warning("store away, waiting for a connection: %s", exc.message)
                time.sleep(RETRY_S)
            else:
                break
        if told:
            logger.warning("store back")

    def _check_broker(self) -> None:
        """Say with which of its settings the server may lose what it has accepted."""
        try:
            with translate_errors():
                broken = broken_preconditions(self._client)
        except BrokerUnavailable:
            return  # said when the consumer connects
        for line in broken:
            logger.warning("broker: %s", line)

    def keep_partitions(self) -> None:
        """Make the partitions of the coming days; rows of a day without one go to the default partition meanwhile."""
        try:
            with address.connect(self.settings.require_database_url(), self.settings.database_timeout_s) as connection:
                if is_read_only(connection):
                    logger.warning("store takes no writes, results will wait in the workers; %s", READ_ONLY_HINT)
                else:
                    ensure_partitions(connection)
        except psycopg.Error as exc:
            logger.warning("partitions of the coming days were not made; trying again later: %s", type(exc).__name__)

    def served(self) -> dict[str, Served]:
        """Return what requests of each queue are answered with that name no version."""
        return {lane.queue: Served(lane.package.version, lane.signature) for lane in self.lanes.defaults()}

    def admit(self, request: InferenceRequest) -> None:
        """Take a checked request; it is handed to the executor together with the others of this claim."""
        self._window.admit(request.lane.queue, request.rows, request.size_bytes)  # type: ignore[union-attr]  # checked
        self._gather(request)

    def resolve(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        """Take a request that was delivered before: it runs, or ends as `ending` says, only if it has no row."""
        if request.rows:
            assert request.lane is not None
            self._window.admit(request.lane.queue, request.rows, request.size_bytes)
        self._resolver.ask(request, ending)

    def postpone(self, request: InferenceRequest, delay_s: float) -> None:
        """Let a request whose time has not come wait in the server, where any worker finds it."""
        self._outbox.put(postponed(request, delay_s))

    def probe(self, returned: Returned) -> None:
        """Have a message that came back opened by the executor; then it goes on, on the main thread."""
        # It takes a row's place in the window meanwhile.
        self._window.admit(returned.delivery.queue, 1, len(returned.delivery.raw))
        self._executor.probe(returned)

    def _on_opened(self, returned: Returned) -> None:
        """On the executor's thread: go on with this message on the main thread, after those opened before."""
        self._opened.append(returned)
        if self.call_soon is not None:
            self.call_soon(self._let_go_on)

    def _let_go_on(self) -> None:
        while self._opened and not self._closed:
            returned = self._opened.popleft()
            self._window.withdraw(returned.delivery.queue, 1, len(returned.delivery.raw))
            returned.go_on()

    def _gather(self, request: InferenceRequest) -> None:
        if not self._arrived and self.call_soon is not None:
            self.call_soon(self._flush)
        self._arrived.append(request)

    def _discount(self, request: InferenceRequest) -> None:
        assert request.lane is not None
        self._window.withdraw(request.lane.queue, request.rows, request.size_bytes)

    def end(self, outcome: Outcome) -> None:
        """End a request that never reaches a model."""
        self._outbox.put(not_run(outcome.request.lane, [outcome]))

    def room(self, queue: str) -> int:
        """Return how many requests may be claimed now from a queue: what may begin soon, and no more."""
        if self._closed or not self._outbox.available or not self._outbox.has_room:
            return 0
        room = self._window.room(queue)
        if not room:
            return 0
        now = time.monotonic()
        opens_in_s = self._window.opens_in_s(now)
        if opens_in_s > 0:
            self._claim_in(opens_in_s, now)
            return 0
        return room

    def room_bytes(self) -> int:
        """Return about how many bytes one claim may take."""
        return max(1, int(self._window.room_bytes))

    def _claim_in(self, delay_s: float, now: float) -> None:
        """Look for room again after some seconds, unless that was said already, for then or before."""
        delay_s = max(delay_s, TIMER_S)
        if delay_s == math.inf or self.call_later is None or now < self._opens_at <= now + delay_s + TIMER_S:
            return
        self._opens_at = now + delay_s
        self.call_later(delay_s, self._claim_soon)

    def _claim_soon(self) -> None:
        claim_soon = self.claim_soon
        if claim_soon is not None:
            claim_soon()

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
        """Whether a batch still runs, or might, or a model is being loaded."""
        return self._executor.is_alive or self._executor.is_loading

    def _flush(self) -> None:
        if not self._arrived:
            return
        requests, self._arrived = self._arrived, []
        if self._holds_up():
            requests = self._put_back(requests)
            if not requests:
                return
        self._watch()
        if len(requests) <= FEW and self._executor.is_waiting:
            self._way.give(lambda: self._executor.submit(requests))
        else:
            self._executor.submit(requests)
        self.monitor.received(requests)

    def _on_taken(self, lane: Lane, rows: int, size_bytes: int) -> None:
        """On the executor's thread: requests left a batcher, so there is room for more."""
        self._window.taken(lane.queue, rows, size_bytes)
        self._claim_soon()

    def _on_held_up(self) -> None:
        """On the executor's thread: a long batch begins."""
        if self.call_soon is not None:
            self.call_soon(self._take_back)

    def _take_back(self) -> None:
        """Put back what has to wait for long, so that whoever is free can take it."""
        if not self._closed and self._holds_up():
            self._put_back(self._executor.take_back())

    def _holds_up(self) -> bool:
        """Whether what waits for the model has to wait for long; main thread."""
        running = self._executor.running
        return running is not None and prefetch.goes_back(running.rest_s(time.monotonic()))

    def _put_back(self, requests: list[InferenceRequest]) -> list[InferenceRequest]:
        """Put requests back at the head of their queues, as if nobody had claimed them; return those that stay here."""
        back = [request for request in requests if not is_suspect(request)]
        for request in back:
            self._discount(request)
        _release(back)
        return [request for request in requests if is_suspect(request)]

    def _watch(self) -> None:
        """Look now and then whether a batch runs so late that what waits behind it should go back."""
        now = time.monotonic()
        # By time: with a lost connection timers may be gone too.
        if now >= self._looks_at and self.call_later is not None:
            self._looks_at = now + WATCH_S
            self.call_later(WATCH_S, self._look)

    def _look(self) -> None:
        if not self._executor.is_waiting and not self._closed:
            self._take_back()
            self._looks_at = 0.0
            self._watch()

    def _on_room(self) -> None:
        """On the outbox's thread: the executor may go on, and claiming with it."""
        self._executor.wake()
        self._claim_soon()

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
                self._discount(outcome.request)
                self.monitor.received([outcome.request])
            self.end(outcome)
        if resolved.known:
            for known in resolved.known:
                if known.request.rows:
                    self._discount(known.request)
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
