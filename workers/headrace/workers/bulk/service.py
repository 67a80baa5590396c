"""The bulk side of a worker, put together: tickets wake it, slots run shards, one thread plans, one keeps claims."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from headrace.contracts import Settings
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.keeper import Keeper
from headrace.workers.bulk.parts import Parts
from headrace.workers.bulk.planning.leader import Leader
from headrace.workers.bulk.shards.execution import BulkExecution
from headrace.workers.bulk.shards.slots import Slots
from headrace.workers.bulk.shown import Shown

logger = logging.getLogger(__name__)


class BulkService:
    """The bulk side of one worker process."""

    def __init__(self, settings: Settings, parts: Parts, shown: Shown) -> None:
        """parts: of the worker. shown: tells Flower."""
        executor = parts.executor
        self._desk = Desk(settings, parts.worker)
        self._execution = BulkExecution(executor.wake, lambda: executor.has_arrivals)
        executor.background = self._execution
        self._slots = Slots(
            self._desk,
            parts.models,
            self._execution,
            revoked=parts.revoked,
            shown=shown,
            on_idle=parts.loop.claim_soon,
        )
        self._keeper = Keeper(self._desk, self._slots)
        self._planning = Leader(self._desk, parts.models, self._execution)

    def start(self) -> None:
        """Start the threads. Shards of an earlier process of the same name that is gone are anybody's from now on."""
        self._desk.forget_earlier_process()
        self._slots.start()
        self._planning.start()
        self._keeper.start()
        logger.info("bulk.begun worker=%s", self._desk.worker)

    def wake(self) -> None:
        """Look into the ledger, because a ticket has come; any thread."""
        self._slots.expect()
        self._desk.saw_work()
        self._desk.wake()

    def room(self) -> int:
        """Return how many tickets may be claimed."""
        return self._slots.room()

    def stop(self) -> None:
        """Claim nothing more; shards that run publish what is done, and leave the rest to others."""
        self._desk.stop()
        self._slots.stop()
        self._execution.close()

    def join(self, deadline: float, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Wait until a monotonic time for what runs to be published; False when it was not."""
        while not self._slots.join(0.05):
            if hurried() or time.monotonic() >= deadline:
                return False
        return True
