"""The desk of a worker's bulk side: what its threads share, and by what they wake each other."""

from __future__ import annotations

import logging
import math
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import redis

from headrace.bulk.sources.query import is_query, stage
from headrace.bulk.storage.opening import Storages
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.scratch import OwnScratch
from headrace.bulk.storage.uris import join
from headrace.contracts import HeadraceError, ModelDirectory, PackageError, Settings, StoreUnavailable
from headrace.contracts.jobs import STORE, ScoreSpec, Ticket, score_queue
from headrace.contracts.package.manifest import MANIFEST, ModelPackage
from headrace.contracts.settings import read_stack
from headrace.queueing import connect_to, translate_errors
from headrace.queueing.keys import keys_of
from headrace.queueing.submission import send_tickets
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claimant, JobRow
from headrace.results_store.jobs.sweeping import Load, tickets_to_send
from headrace.workers.process.identity import is_gone, own_identity

logger = logging.getLogger(__name__)

#: After trouble with Postgres, the threads look again this often.
RETRY_S: Final = 1.0

#: A worker with nothing to do looks again after this time while there are jobs: more of them may be planned by then,
#: and a ticket wakes one worker only.
LOOK_S: Final = 1.0

#: So long after the last sign of it there is taken to be work.
WORK_S: Final = 60.0

#: How many workers serve a model is asked for this often.
WORKERS_S: Final = 5.0


class Desk:
    """Settings, storages and packages of a worker's bulk jobs. Safe to use from several threads."""

    def __init__(self, settings: Settings, worker: str) -> None:
        """worker: its name; the ledger notes who has which shard. Raises ConfigurationError, StorageUnavailable."""
        self.settings: Final = settings
        self.worker: Final = worker
        self._process = own_identity()
        self.models: Final = ModelDirectory(settings.models)
        self.stopping: Final = threading.Event()
        self._own_scratch = OwnScratch(settings.bulk_scratch)
        self.scratch: Final = self._own_scratch.folder
        self._changed = threading.Condition()
        self._changes = 0
        self._work_until = -math.inf
        self._workers: Mapping[str, int] = {}
        self._workers_until = -math.inf
        self._away = threading.Event()

    def ledger(self) -> Ledger:
        """Return a ledger, for one thread."""
        return Ledger(self.settings.require_database_url(), self.settings.database_timeout_s)

    def forget_earlier_process(self) -> None:
        """End the leases of an earlier process of this name that is gone; all others pass by themselves."""
        try:
            with self.ledger() as ledger:
                lapsed = ledger.running.lapse(self.worker, is_gone)
        except HeadraceError as exc:
            logger.info("bulk.earlier_leases_not_ended error=%s", exc.message)
        else:
            if lapsed:
                logger.warning("bulk.earlier_process_died worker=%s shards=%d", self.worker, lapsed)

    def storages(self) -> Storages:
        """Return the storages that jobs may use, as the settings are now."""
        local = read_stack(self.settings.home) is not None
        return Storages(Roots.parse(self.settings.bulk_roots, local_stack=local), self.settings.bulk_timeout_s)

    def claimant(self) -> Claimant:
        """Return who claims: this worker, for the models that it has packages of."""
        names = tuple(self.models.names())
        packages = tuple(self._checksums(names))
        return Claimant(worker=self.worker, models=names, packages=packages, process=self._process)

    def _checksums(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the checksums of the packages that are there; jobs on others are left to workers that have those."""
        for name in names:
            for version in self.models.versions(name):
                try:
                    yield self._checksum(
                        name, version, (self.models.root / name / version / MANIFEST).stat().st_mtime_ns
                    )
                except (OSError, HeadraceError):
                    continue

    @lru_cache(maxsize=1024)  # noqa: B019 — a desk lives as long as its process
    def _checksum(self, name: str, version: str, mtime_ns: int) -> str:  # noqa: ARG002 — the key of the cache
        return self.models.get(name, version).manifest.checksum

    def package_of(self, job: JobRow) -> ModelPackage:
        """Return the package that a job is pinned to. Raises PackageError, UnknownModel."""
        package = self.models.get(job.spec.model, job.version)
        if package.manifest.checksum != job.package_sha256:
            raise PackageError(
                f"{package.name} {package.version} of this worker is another package than when the job was created "
                f"(checksum {package.manifest.checksum[:12]}…, then {job.package_sha256[:12]}…); run the command again "
                "with --restart, or put the old package back"
            )
        return package

    def staged(self, job: JobRow) -> ScoreSpec:
        """Return the spec of a job with each query staged as files, which is done now if it was not done before.

        Rows are staged beside the outputs, where all workers see them; those of a job whose output is the store, in the
        home of the local stack.
        """
        spec = job.spec
        if not any(map(is_query, spec.inputs)):
            return spec
        base = str(self.settings.home.resolve() / "bulk-input") if spec.output == STORE else join(spec.output, "_input")
        inputs = [
            self._stage(uri, join(base, f"{job.id}-{number}")) if is_query(uri) else uri
            for number, uri in enumerate(spec.inputs)
        ]
        return msgspec.structs.replace(spec, inputs=tuple(inputs))

    def _stage(self, uri: str, folder: str) -> str:
        storage = self.storages().of(folder)
        with tempfile.TemporaryDirectory(prefix="headrace-query-") as scratch:
            return stage(uri, self.settings.require_database_url(), storage, folder, Path(scratch))

    def wake_workers(self, load: Load) -> None:
        """Send the tickets that a model's queue lacks; what can't be sent now, the next sweep sends."""
        try:
            with translate_errors(), connect_to(self.settings) as client:
                waiting, workers = _queues_of(client, [load.model])[load.model]
                tickets = tickets_to_send(load, waiting + load.running, workers)
                send_tickets(client, load.model, [(ticket, note_of(ticket)) for ticket in tickets], self.worker)
        except HeadraceError as exc:
            logger.info("bulk.tickets_not_sent model=%s error=%s", load.model, exc.message)

    def workers_by_model(self) -> Mapping[str, int]:
        """Return how many worker processes serve each model, this one among them; the last that the broker told."""
        if time.monotonic() >= self._workers_until:
            self._workers_until = time.monotonic() + WORKERS_S
            names = self.models.names()
            try:
                with translate_errors(), connect_to(self.settings) as client:
                    self._workers = {name: max(1, workers) for name, (_, workers) in _queues_of(client, names).items()}
            except HeadraceError as exc:
                logger.info("bulk.workers_not_counted error=%s", exc.message)
                self._workers_until = time.monotonic() + WORK_S
        return self._workers

    def workers_of(self, model: str) -> int:
        """Return how many worker processes serve a model, this one among them."""
        return self.workers_by_model().get(model, 1)

    def saw_work(self) -> None:
        """Take note that there is a job with something to do."""
        self._work_until = time.monotonic() + WORK_S

    @property
    def look_s(self) -> float | None:
        """After how long a thread with nothing to do looks again; None: when it is woken, since there is no job."""
        return random.uniform(LOOK_S / 2, LOOK_S) if time.monotonic() < self._work_until else None  # noqa: S311 — no secret

    def wake(self) -> None:
        """Make all threads look whether there is something to do."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait(self, seen: int, seconds: float | None) -> int:
        """Wait until something has changed since `seen`, or some seconds; return what is seen now."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen or self.stopping.is_set(), seconds)
            return self._changes

    def seen(self) -> int:
        """Return a number that changes with `wake`."""
        return self._changes

    def stop(self) -> None:
        """Have all threads end."""
        self.stopping.set()
        self.wake()

    def attempt(self, work: Callable[[], bool]) -> bool:
        """Do something with the ledger; trouble with Postgres is logged once, and False."""
        try:
            done = work()
        except StoreUnavailable as exc:
            if not self._away.is_set():
                self._away.set()
                logger.warning("bulk.store_away error=%s", exc.message)
            self.stopping.wait(RETRY_S)
            return False
        if self._away.is_set():
            self._away.clear()
            logger.warning("bulk.store_back")
        return done


def _queues_of(client: redis.Redis, models: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return, by model, how many tickets wait, and how many workers serve it."""
    keys = keys_of(client)
    with client.pipeline(transaction=False) as pipe:
        for model in models:
            pipe.llen(keys.queue_list(score_queue(model), 0))
            pipe.zcard(keys.consumers(score_queue(model)))
        counts = list(map(int, pipe.execute()))
    return dict(zip(models, zip(counts[::2], counts[1::2], strict=True), strict=True))


def note_of(ticket: Ticket) -> str:
    """Return the line that Flower shows of a ticket."""
    what = "planning" if ticket.shard < 0 else f"shard {ticket.shard}"
    return f"job {ticket.job}, {what}"
