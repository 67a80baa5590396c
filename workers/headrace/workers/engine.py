"""The engine: everything between Celery's consumer and the store, put together and taken down in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from typing import Final

from headrace.contracts import ModelDirectory, Settings
from headrace.contracts.jobs import score_queue
from headrace.contracts.problem import Problem
from headrace.queueing import RunningMarker, connect_to
from headrace.queueing.consumer.serving import Served
from headrace.results_store import StoreReader, StoreWriter
from headrace.workers.bulk.making import LazyBulk, NoBulk, make_bulk
from headrace.workers.bulk.parts import Parts
from headrace.workers.events.celery_events import Monitor
from headrace.workers.execution.executor import Executor, Listener
from headrace.workers.execution.running import RunningMessages
from headrace.workers.intake.arrivals import Arrivals, Destinations, release
from headrace.workers.intake.claiming import ClaimGate
from headrace.workers.intake.parse import Parser
from headrace.workers.intake.strategy import Intake
from headrace.workers.intake.window import Window
from headrace.workers.models.batch_limit_store import BatchLimitStore
from headrace.workers.models.served_model import ServedModel
from headrace.workers.models.table import ModelTable
from headrace.workers.outbox.outbox import Outbox
from headrace.workers.process.event_loop import EventLoop
from headrace.workers.process.gil_handoff import GilHandoff
from headrace.workers.redelivery.lookup import RedeliveryLookup
from headrace.workers.redelivery.redeliveries import Redeliveries
from headrace.workers.request import FinishedBatch
from headrace.workers.startup import check_broker, check_store, keep_partitions

logger = logging.getLogger(__name__)

#: How often a worker that finishes what runs checks whether it was told to leave at once; a check costs microseconds.
HURRY_LOOK_S: Final = 0.1

#: After the grace period the outbox has this long to commit what the last batch left; servers that say nothing must not
#: hold up the end of the process for longer.
FLUSH_S: Final = 0.8


class Engine:
    """The parts of one worker process. The main thread admits and claims; executor and outbox have their own threads.

    parser, intake, claims, redeliveries: for the consumer. monitor: for its event dispatcher. loop: back into Celery.
    """

    def __init__(self, settings: Settings, loop: EventLoop, *, worker: str, revoked: Container[str]) -> None:
        """worker: the Celery node name, stored with each row. revoked: the ids that were cancelled."""
        self.settings = settings
        self.loop = loop
        self._client = connect_to(settings)
        running = RunningMessages(RunningMarker(self._client, worker))
        self._limits = BatchLimitStore(settings.device, running)
        self.models = ModelTable(
            ModelDirectory(settings.models), device=settings.device, threads=settings.threads, limits=self._limits
        )
        self.monitor = Monitor(settings.events_per_s, loop.call_later)
        self._handoff = GilHandoff()
        self._outbox = self._make_outbox(worker)
        self._executor = Executor(
            self._outbox,
            running,
            Listener(self._on_taken, self._on_held_up, loop.claim_soon),
            revoked=revoked,
            max_retries=settings.max_retries,
            check_every=settings.check_every,
        )
        self._window = Window(self.models, lambda: self._executor.running, settings.claimed_bytes)
        self.bulk = self._make_bulk(worker, revoked)
        self.claims = ClaimGate(self._window, self._outbox, loop, tickets=self.bulk.room)
        self._lookup = RedeliveryLookup(
            StoreReader(settings.require_database_url(), pool_size=1, timeout_s=settings.database_timeout_s),
            max_deliveries=settings.max_deliveries,
        )
        received = self.monitor.received
        destinations = Destinations(self._executor, self._outbox, self._lookup.ask, received)
        self._arrivals = Arrivals(destinations, self._window, self._handoff, loop)
        self.redeliveries = Redeliveries(self._executor, self._arrivals, self._window, self._outbox, loop, received)
        self.parser = Parser(settings, self.models, revoked)
        self.intake = Intake(self.parser, self._arrivals, revoked)
        self._closed = False

    def _make_outbox(self, worker: str) -> Outbox:
        settings = self.settings
        writer = StoreWriter(
            settings.require_database_url(), leaving=self._handoff.release, timeout_s=settings.database_timeout_s
        )
        return Outbox(writer, self._client, settings, worker=worker, settled=self._on_settled, room=self._on_room)

    def _make_bulk(self, worker: str, revoked: Container[str]) -> LazyBulk | NoBulk:
        parts = Parts(
            worker=worker,
            models=self.models,
            executor=self._executor,
            revoked=revoked,
            monitor=self.monitor,
            loop=self.loop,
        )
        return make_bulk(self.settings, parts)

    def start(self) -> None:
        """Check the store, load the models and start the threads. Raises HeadraceError with cause and remedy."""
        check_store(self.settings)
        keep_partitions(self.settings)
        self._limits.load(self._client)
        check_broker(self._client)
        self.models.load_newest()
        self._outbox.start()
        self._lookup.start(self.redeliveries.on_classified)
        self._executor.start()
        self.bulk.start()

    def served(self) -> dict[str, Served]:
        """Return, by queue, what answers requests that name no version, and what bulk jobs are pinned to."""
        found = {}
        for model in self.models.defaults():
            package = model.package
            served = Served(package.version, model.signature, package.manifest.checksum, model.problem)
            found[model.queue] = found[score_queue(package.name)] = served
        return found

    def problems(self) -> dict[str, Problem]:
        """Return, by queue, why models give no answers at present: the part of `served` that changes often."""
        return {model.queue: problem for model in self.models.defaults() if (problem := model.problem)}

    def drain(self, grace_s: float, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop: put back what has not started, finish what runs within `grace_s`, store it, end the threads.

        hurried: whether to leave at once after all; what is not done then comes back with the lease.
        """
        if self._closed:
            return
        self._closed = True
        self.claims.close()
        self.redeliveries.close()
        self._arrivals.close()
        deadline = time.monotonic() + grace_s
        self.bulk.stop()
        self._lookup.close(FLUSH_S)
        unstarted = self._executor.drain()
        release(unstarted)
        if unstarted:
            logger.info("put back %d requests that had not started", len(unstarted))
        if not _ends(self._executor.join, deadline, hurried):
            why = "told to leave at once" if hurried() else f"after {grace_s:.0f} s of grace"
            # Its model stays open: closing it under a batch would crash.
            logger.warning("a batch still ran %s; its requests will be delivered again", why)
            return
        if not self.bulk.join(deadline, hurried):
            logger.warning("what was done of a bulk shard could not be published in time; it will run again")
        self._outbox.stop()
        if not _ends(self._outbox.join, max(deadline, time.monotonic() + FLUSH_S), hurried):
            self._outbox.give_up()
            logger.warning("results could not be stored in time; their requests will be delivered again")
        self.models.close()

    @property
    def is_busy(self) -> bool:
        """Whether a batch still runs, or might, or a model is being loaded."""
        return self._executor.is_alive or self._executor.is_loading

    def _on_taken(self, served: ServedModel, rows: int, size_bytes: int) -> None:
        """Make room for more requests; called on the executor's thread when some left a batcher."""
        self._window.taken(served.queue, rows, size_bytes)
        self.loop.claim_soon()

    def _on_held_up(self) -> None:
        """Put back what waits behind a long batch; called on the executor's thread."""
        self.loop.call_soon(self._arrivals.take_back)

    def _on_room(self) -> None:
        """Let executor and claims go on; called on the outbox's thread when it has room."""
        self._executor.wake()
        self.loop.claim_soon()

    def _on_settled(self, batches: list[FinishedBatch]) -> None:
        """Show finished batches on the main thread; called on the outbox's thread."""
        self.loop.call_soon(lambda: self.monitor.settled(batches))


def _ends(join: Callable[[float], bool], deadline: float, hurried: Callable[[], bool]) -> bool:
    """Wait for a thread until a monotonic time, or until there is no more time; False when it still runs."""
    while not join(min(max(0.0, deadline - time.monotonic()), HURRY_LOOK_S)):
        if hurried() or time.monotonic() >= deadline:
            return False
    return True
