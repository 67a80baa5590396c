"""The leader: one worker at a time plans and finalizes a job, whoever looks first."""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from headrace.bulk.planning.cutting import CutPolicy, Pace
from headrace.bulk.planning.planner import Planner, read_cursor
from headrace.bulk.planning.survey import Survey, survey
from headrace.bulk.shards.groups import group_rows_for
from headrace.bulk.shards.job import OpenJob, sorts_rows
from headrace.bulk.sinks.base import FinalizingLost
from headrace.bulk.sinks.finishing.finalizer import Finalizer
from headrace.bulk.sinks.finishing.outcome import check_rows, outcome_of
from headrace.bulk.sinks.output.folder import check_output
from headrace.bulk.storage.base import InputMissing
from headrace.bulk.storage.opening import Storages
from headrace.bulk.storage.probing import probe
from headrace.contracts import HeadraceError
from headrace.contracts.jobs import ENDED, STORE, DryRun, JobProblem, JobState
from headrace.contracts.package.manifest import ModelPackage
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import JobRow, Lease, Page, PlanLease
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.planning.dry_run import dry_run
from headrace.workers.bulk.planning.replacing import make_room
from headrace.workers.bulk.shards.execution import BulkExecution, ShardInference
from headrace.workers.models.loading import failure_to_load
from headrace.workers.models.table import ModelTable
from headrace.workers.process.fatal_thread import fatal_thread

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A planner that is silent for so long is followed by another, ...
LEASE_S: Final = 30.0

#: ... or for so many leases, where these are short so that dead workers are followed soon.
LEASES: Final = 3

#: Jobs are planned while fewer shards than this wait, in pages of so many.
WANTED: Final = 256
PAGE_SHARDS: Final = 64

#: While nobody knows how fast a job is, few shards are planned for each worker; the rest is cut by their pace.
FIRST_SHARDS: Final = 4

#: A job whose pace is not known yet, or of which enough waits, is looked at again after this time.
LOOK_S: Final = 0.5

#: Trouble with a storage is tried again after this time.
DELAY_S: Final = 5.0

#: So is trouble that nobody knows, after this time.
LONG_DELAY_S: Final = 30.0


class Leader:
    """A thread that plans and finalizes jobs when it is this worker's turn."""

    def __init__(self, desk: Desk, models: ModelTable, execution: BulkExecution) -> None:
        """models, execution: for dry runs."""
        self._desk = desk
        self._lease_s = min(LEASE_S, LEASES * desk.settings.lease_s)
        self._models = models
        self._execution = execution
        self._planners: dict[uuid.UUID, tuple[bytes, Planner, CutPolicy]] = {}
        self._thread = fatal_thread("headrace-bulk-plan", self._loop)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _loop(self) -> None:
        desk = self._desk
        with desk.ledger() as ledger:
            while not desk.stopping.is_set():
                seen = desk.seen()
                worked = desk.attempt(partial(self._plan_one, ledger))
                worked = desk.attempt(partial(self._finish_one, ledger)) or worked
                if not worked:
                    desk.wait(seen, LOOK_S if self._planners else desk.look_s)

    def _plan_one(self, ledger: Ledger) -> bool:
        """Plan a page of a job, if there is one to plan; return whether there was."""
        lease = ledger.plans.lead(self._desk.claimant(), self._lease_s, WANTED)
        if lease is None:
            self._planners.clear()
            return False
        try:
            return self._plan_page(ledger, lease)
        except HeadraceError as exc:
            if exc.retriable:
                logger.warning("bulk.planning_put_off job=%s error=%s", lease.job.id, exc.message)
                ledger.plans.give_up(lease)
                self._desk.stopping.wait(DELAY_S)
                return True
            logger.error("bulk.job_failed job=%s error=%s", lease.job.id, exc.message)  # noqa: TRY400 — its message is the cause
            ledger.plans.fail(lease, JobProblem.of(exc).text)
        except Exception as exc:
            logger.exception("bulk.job_failed job=%s", lease.job.id)
            ledger.plans.fail(lease, f"it could not be planned: {type(exc).__name__}; the worker's log says why")
        self._planners.pop(lease.job.id, None)
        return True

    def _plan_page(self, ledger: Ledger, lease: PlanLease) -> bool:
        if lease.job.options.dry_run:
            ledger.dry_runs.keep(lease.job.id, self._dry_run(lease.job))
            return True
        read_to, planner, policy = self._planners.get(lease.job.id, (None, None, None))
        total: int | None = None
        notes: tuple[str, ...] | None = None
        if planner is None or policy is None or read_to != lease.cursor:
            found, policy, notes = self._open(ledger, lease)
            total = found.bytes_total
            start = read_cursor(lease.cursor)
            known = _known_files(ledger, lease.job.id) if start.done else frozenset[str]()
            planner = Planner(self._desk.staged(lease.job), self._desk.storages().of, start, known)
        pace = Pace(
            seconds_per_row=1 / lease.pace.rows_per_s if lease.pace.rows_per_s else policy.pace.seconds_per_row,
            seconds_per_byte=1 / lease.pace.bytes_per_s if lease.pace.bytes_per_s else 0.0,
        )
        blind = not lease.pace.shards and not pace.seconds_per_row
        if blind and lease.pace.pending + lease.pace.running:
            self._planners[lease.job.id] = (lease.cursor, planner, policy)
            ledger.plans.give_up(lease)
            return False
        workers = self._workers_of(lease)
        page = planner.page(
            FIRST_SHARDS * workers if blind else PAGE_SHARDS,
            msgspec.structs.replace(policy, pace=pace, workers=workers),
        )
        cursor = page.cursor_bytes
        made = Page(files=page.files, slices=page.slices, cursor=cursor, done=page.done, bytes_total=total, notes=notes)
        added = ledger.plans.add_page(lease, made)
        if page.done or not added:
            self._planners.pop(lease.job.id, None)
        else:
            self._planners[lease.job.id] = (cursor, planner, policy)
            ledger.plans.give_up(lease)
        self._desk.wake()
        for load in ledger.sweep([lease.job.spec.model]):
            self._desk.wake_workers(load)
        return True

    def _workers_of(self, lease: PlanLease) -> int:
        """Return how many workers a job may have: those that serve its model, and no more than it asks for."""
        workers = max(self._desk.workers_of(lease.job.spec.model), lease.pace.workers)
        return min(workers, lease.job.options.workers or workers)

    def _dry_run(self, job: JobRow) -> DryRun:
        storages = self._desk.storages()
        found = survey(self._desk.staged(job), storages.of)
        package = self._desk.package_of(job)
        if job.spec.output != STORE:
            storages.of(job.spec.output)  # may be written to; what it holds is no matter, for nothing is written
        if found.first is None:
            raise InputMissing("the input has no files")
        served = self._models.get(job.spec.model, job.version)
        failure = failure_to_load(served)
        if failure is not None:
            raise failure
        inference = ShardInference(self._execution, served)
        opened, storage = OpenJob(job, package, storages, found.first), storages.of(found.first.uri)
        return dry_run(opened, found, storage, inference, self._desk.scratch, self._desk.workers_of(job.spec.model))

    def _open(self, ledger: Ledger, lease: PlanLease) -> tuple[Survey, CutPolicy, tuple[str, ...] | None]:
        """Look at the input and the output of a job before anything is planned; also return its notes, if new."""
        notes = None
        job, storages = lease.job, self._desk.storages()
        package = self._desk.package_of(job)
        found = survey(self._desk.staged(job), storages.of)
        if not lease.cursor:
            if job.spec.output != STORE:
                make_room(ledger, job, storages.of(job.spec.output))
            notes = check_job(job, package, storages, found)
        rows = package.manifest.batching.max_rows if package.manifest.batching.independent_rows else 1
        policy = CutPolicy(
            batch_rows=rows,
            window_rows=group_rows_for(rows, 0, sorts=True) if sorts_rows(package) else 0,
            pace=pace_of(package),
            bytes_total=found.bytes_total or 0,
        )
        return found, policy, notes

    def _finish_one(self, ledger: Ledger) -> bool:
        """Write the end of a job, if there is one; return whether there was."""
        lease = ledger.finishes.lead(self._desk.claimant(), self._lease_s)
        if lease is None:
            return False
        state = lease.job.state if lease.job.state in ENDED else JobState.SUCCEEDED
        try:
            etag = self._finalize(ledger, lease)
        except FinalizingLost:
            return True
        except HeadraceError as exc:
            if exc.retriable:
                logger.warning("bulk.finalizing_put_off job=%s error=%s", lease.job.id, exc.message)
                ledger.finishes.give_up(lease, DELAY_S)
                return True
            ledger.finishes.finish(lease, JobState.FAILED, error=JobProblem.of(exc).text)
        except Exception:  # a full scratch disk, for one: nothing for which online requests should lose their worker
            logger.exception("bulk.finalizing_put_off job=%s", lease.job.id)
            ledger.finishes.give_up(lease, LONG_DELAY_S)
        else:
            ledger.finishes.finish(lease, state, etag)
        return True

    def _finalize(self, ledger: Ledger, lease: Lease) -> str:
        outcome = outcome_of(ledger, lease, dt.datetime.now(dt.UTC))
        if lease.job.spec.output == STORE:
            check_rows(outcome)
            return ""
        storage = self._desk.storages().of(lease.job.spec.output)
        self._desk.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="headrace-finish-", dir=self._desk.scratch) as scratch:
            return Finalizer(storage, lease.job.spec.output, outcome, Path(scratch)).run().manifest_etag


def _known_files(ledger: Ledger, job_id: uuid.UUID) -> frozenset[str]:
    """Return the URIs of the files of a job."""
    found: list[str] = []
    after = -1
    while page := ledger.jobs.files(job_id, after):
        found += [file.uri for file in page]
        after = page[-1].file_no
    return frozenset(found)


def pace_of(package: ModelPackage) -> Pace:
    """Return the pace that a package's measurement promises; unknown if it was never measured."""
    advice = package.manifest.batching
    seconds = advice.seconds_fixed + advice.seconds_per_row * advice.max_rows
    return Pace(seconds_per_row=seconds / advice.max_rows)


def check_job(job: JobRow, package: ModelPackage, storages: Storages, found: Survey) -> tuple[str, ...]:
    """Raise what keeps a job from being run, before anything is computed; return what its user is to know."""
    notes = OpenJob(job, package, storages, found.first).notes if found.first is not None else ()
    if job.spec.output != STORE:
        output = storages.of(job.spec.output)
        check_output(output, job.spec.output, job.spec, str(job.id))
        probe(job.spec.output, output)
    return notes
