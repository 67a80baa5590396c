"""Making the bulk side of a worker, where its libraries are installed (`headrace[bulk]`)."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Protocol

from headrace.contracts import HeadraceError, ModelDirectory, Settings
from headrace.results_store.jobs.ledger import Ledger
from headrace.workers.bulk.parts import Parts
from headrace.workers.process.fatal_thread import fatal_thread

logger = logging.getLogger(__name__)

#: A worker that has had no bulk job looks for forgotten ones this often.
IDLE_S: Final = 60.0

#: Arrow's allocator, mimalloc, reads this when pyarrow is loaded. 0: what is freed goes back to the system at once, as
#: each shard is read by a thread of its own, and what one has freed the next would not use. See docs/decisions/0019.
_ALLOCATOR: Final = ("MIMALLOC_PURGE_DELAY", "0")

#: Libraries without which a worker takes no tickets.
_NEEDED: Final = ("pyarrow", "obstore")


class Bulk(Protocol):
    """The bulk side of a worker."""

    def start(self) -> None:
        """Start its threads."""
        ...

    def wake(self) -> None:
        """Look into the ledger, because a ticket has come; any thread."""
        ...

    def room(self) -> int:
        """Return how many tickets may be claimed."""
        ...

    def stop(self) -> None:
        """Claim nothing more; shards that run publish what is done, and leave the rest to others."""
        ...

    def join(self, deadline: float, hurried: Callable[[], bool]) -> bool:
        """Wait until a monotonic time for what runs to be published; False when it was not."""
        ...


class NoBulk:
    """A worker without the libraries of bulk jobs."""

    def start(self) -> None:
        """Do nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def room(self) -> int:
        """Return 0: no ticket is claimed."""
        return 0

    def stop(self) -> None:
        """Do nothing."""

    def join(self, deadline: float, hurried: Callable[[], bool]) -> bool:  # noqa: ARG002 — as in `Bulk`
        """Return True at once."""
        return True


class LazyBulk:
    """The bulk side of a worker, made when there is the first job for it: its libraries take some 100 MB.

    Until then a thread waits for a ticket, and looks for forgotten jobs now and then, with one short query.
    """

    def __init__(self, settings: Settings, make: Callable[[], Bulk], models: Callable[[], list[str]]) -> None:
        """make: makes the bulk side. models: names those of this worker."""
        self._settings = settings
        self._make = make
        self._models = models
        self._made: Bulk | None = None
        self._stopping = False
        self._news = threading.Event()
        self._thread = fatal_thread("headrace-bulk", self._watch)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look into the ledger, because a ticket has come; any thread."""
        self._news.set()
        if self._made is not None:
            self._made.wake()

    def room(self) -> int:
        """Return how many tickets may be claimed: none by a worker that is busy, for they are to wake idle ones."""
        if self._stopping:
            return 0
        if self._made is None:
            return 0 if self._news.is_set() else 1
        return self._made.room()

    def stop(self) -> None:
        """Claim nothing more; shards that run publish what is done, and leave the rest to others."""
        self._stopping = True
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._made is not None:
            self._made.stop()

    def join(self, deadline: float, hurried: Callable[[], bool]) -> bool:
        """Wait until a monotonic time for what runs to be published; False when it was not."""
        return self._made is None or self._made.join(deadline, hurried)

    def _watch(self) -> None:
        while not self._stopping:
            if self._news.is_set() or self._finds_jobs():
                if self._begins():
                    return
                self._news.clear()
            if not self._stopping:  # `stop` sets this first, and then the news
                self._news.wait(random.uniform(IDLE_S / 2, IDLE_S))  # noqa: S311 — no secret

    def _begins(self) -> bool:
        """Make and start the bulk side; return False when its settings don't allow it: online requests go on."""
        try:
            made = self._make()
        except HeadraceError as exc:
            logger.error("bulk.not_started error=%s", exc.message)  # noqa: TRY400 — its message is the cause
            return False
        self._made = made
        made.start()
        return True

    def _finds_jobs(self) -> bool:
        settings = self._settings
        try:
            with Ledger(settings.require_database_url(), settings.database_timeout_s) as ledger:
                return bool(ledger.sweep(self._models()))
        except HeadraceError as exc:
            logger.info("bulk.not_looked error=%s", exc.message)
            return False


def has_bulk() -> bool:
    """Return whether the libraries of bulk jobs are installed; loads none of them."""
    return all(find_spec(name) is not None for name in _NEEDED)


def make_bulk(settings: Settings, parts: Parts) -> LazyBulk | NoBulk:
    """Return the bulk side of a worker."""
    if settings.serve == "online" or not has_bulk():
        return NoBulk()

    def make() -> Bulk:
        os.environ.setdefault(*_ALLOCATOR)
        from headrace.workers.bulk.service import BulkService
        from headrace.workers.bulk.shown import Shown

        shown = Shown(parts.monitor, parts.loop.call_soon)
        return BulkService(settings, parts, shown)

    return LazyBulk(settings, make, ModelDirectory(settings.models).names)
