"""Slots: threads that claim shards and run them. There are two, so that one reads while the other infers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container
from concurrent.futures import CancelledError
from functools import partial
from typing import Final

from headrace.bulk.shards.attempt import Attempt
from headrace.bulk.shards.run import Directive, Dropped
from headrace.bulk.sinks.output.names import below
from headrace.contracts import HeadraceError
from headrace.contracts.formatting import first_line
from headrace.contracts.jobs import ENDED, STORE, JobProblem, shard_id
from headrace.results_store import BatchRows
from headrace.results_store.database.errors import StoreRejected
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import Claim, Part, ShardResult
from headrace.runtimes.base import TransientFailure, Unavailable
from headrace.workers.bulk.desk import Desk
from headrace.workers.bulk.shards.control import ShardControl
from headrace.workers.bulk.shards.execution import BulkExecution, ShardInference
from headrace.workers.bulk.shards.opening import OpenJobs
from headrace.workers.bulk.shards.store_output import StoreOutput, without_refused
from headrace.workers.bulk.shown import Shown
from headrace.workers.models.loading import failure_to_load
from headrace.workers.models.served_model import ServedModel
from headrace.workers.models.table import ModelTable
from headrace.workers.process.fatal_thread import fatal_thread

logger = logging.getLogger(__name__)

#: A shard that failed for a reason that may pass is left alone for this long, doubled each time, up to the latter.
DELAY_S: Final = 2.0
LONGEST_DELAY_S: Final = 60.0

#: A shard that failed so often for reasons that should pass fails its job: they don't.
MOST_ATTEMPTS: Final = 20


class Slots:
    """The slots of a worker."""

    def __init__(
        self,
        desk: Desk,
        models: ModelTable,
        execution: BulkExecution,
        *,
        revoked: Container[str],
        shown: Shown,
        on_idle: Callable[[], object],
    ) -> None:
        """revoked: ids of cancelled requests and shards. on_idle: called when there is room for a ticket again."""
        self._desk = desk
        self._models = models
        self._execution = execution
        self._revoked = revoked
        self._shown = shown
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._controls: dict[tuple[str, int], ShardControl] = {}
        self._claiming = threading.Lock()
        self._claimed = 0
        self._expected = 0
        self._looked = 0
        self._threads = [fatal_thread(f"headrace-bulk-{number}", self._loop) for number in (1, 2)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def running(self) -> list[ShardControl]:
        """Return the controls of the shards that run."""
        with self._lock:
            return list(self._controls.values())

    def expect(self) -> None:
        """Take note of a ticket: there is no room for another before a slot has looked for what it may be about."""
        self._expected += 1

    def room(self) -> int:
        """Return how many tickets may be claimed: one by a worker that runs nothing.

        A busy one leaves them to others; it looks for more by itself.
        """
        return int(not self._controls and self._looked == self._expected and not self._desk.stopping.is_set())

    def stop(self) -> None:
        """Have what is done published and the rest left to others; `Desk.stop` comes before."""
        for control in self.running():
            control.stop()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads to end; False when one still runs."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def _loop(self) -> None:
        desk = self._desk
        with desk.ledger() as ledger:
            opened = OpenJobs(desk, ledger)
            while not desk.stopping.is_set():
                seen = desk.seen()
                claimed: list[ShardControl] = []
                if desk.attempt(partial(self._claim, ledger, claimed)):
                    self._run(claimed[0], ledger, opened)
                else:
                    desk.wait(seen, desk.look_s)

    def _claim(self, ledger: Ledger, claimed: list[ShardControl]) -> bool:
        """Claim a shard, if there is one, and add its control; return whether there was.

        One slot looks after the other, so that each knows what the other has.
        """
        desk = self._desk
        claimant, workers = desk.claimant(), desk.workers_by_model()
        with self._claiming:
            expected = self._expected
            try:
                claim = ledger.claims.claim(claimant, desk.settings.lease_s, workers if self._controls else None)
                if claim is not None:
                    claimed.append(self._control(claim))
            finally:
                self._looked = expected
        if self.room():
            self._on_idle()
        return claim is not None

    def _control(self, claim: Claim) -> ShardControl:
        uuid = str(shard_id(str(claim.job.id), claim.shard_no, claim.attempt))
        self._claimed += 1
        control = ShardControl(claim, lambda: uuid in self._revoked, self._claimed)
        with self._lock:
            self._controls[control.key] = control
        self._desk.saw_work()
        return control

    def _run(self, control: ShardControl, ledger: Ledger, opened: OpenJobs) -> None:
        claim = control.claim
        if self._desk.stopping.is_set():
            control.stop()
        self._shown.started(claim)
        outcome: ShardResult | HeadraceError | None = None
        try:
            outcome = self._attempt(claim, control, ledger, opened)
        finally:
            with self._lock:
                del self._controls[control.key]
            self._shown.ended(claim, outcome, control.wall_s)
            self._desk.wake()

    def _attempt(
        self, claim: Claim, control: ShardControl, ledger: Ledger, opened: OpenJobs
    ) -> ShardResult | HeadraceError | None:
        predictions: list[BatchRows] = []
        try:
            if claim.job.options.max_rows_per_s:
                self._confirm(control, ledger)  # the answer has the shard's share of the bound, from its first row on
            job = opened.of(claim.job)
            inference = ShardInference(self._execution, self._loaded(claim), control.order)
            attempt = Attempt(job, claim, inference, self._desk.scratch, lambda: self._confirm(control, ledger))
            mark, rate = self._marking(claim, ledger), lambda: control.max_rows_per_s
            if job.to_store:
                output = StoreOutput(job, claim, self._desk.worker)
                result = attempt.result(attempt.run_into(output, control, mark, rate))
                predictions = output.batches
            else:
                result = attempt.run(control, mark, rate)
        except Dropped:
            if control.cancelled:
                self._settle(lambda: ledger.running.cancel_shard(claim))
            return None
        except (TransientFailure, CancelledError) as exc:
            return self._give_back(claim, ledger, exc)
        except HeadraceError as exc:
            if exc.retriable:
                return self._give_back(claim, ledger, exc)
            problem = JobProblem.of(exc).text
            self._settle(lambda: ledger.running.fail_job(claim, problem))
            return exc
        except Exception as exc:
            logger.exception("bulk.shard_failed job=%s shard=%d", claim.job.id, claim.shard_no)
            return self._give_back(claim, ledger, exc)
        return self._complete(claim, ledger, result, predictions)

    def _loaded(self, claim: Claim) -> ServedModel:
        served = self._models.get(claim.job.spec.model, claim.job.version)
        failure = failure_to_load(served)
        if failure is not None:
            raise failure
        return served

    def _confirm(self, control: ShardControl, ledger: Ledger) -> None:
        """Raise Dropped unless a shard is still this worker's, which may have been frozen for long."""
        claim, lease_s = control.claim, self._desk.settings.lease_s
        self._settle(lambda: control.obey(ledger.running.heartbeat(claim, lease_s, control.rows, control.wall_s)))
        if control.directive() is Directive.DROP:
            raise Dropped

    def _marking(self, claim: Claim, ledger: Ledger) -> Callable[[int, int], None]:
        def mark(start: int, stop: int) -> None:
            if not ledger.running.mark_suspect(claim, (start, stop)):
                raise Dropped

        return mark

    def _complete(
        self, claim: Claim, ledger: Ledger, result: ShardResult, predictions: list[BatchRows]
    ) -> ShardResult | HeadraceError | None:
        """Note the result, however long Postgres is away: the part is published."""
        stored = False
        failure: HeadraceError | None = None

        def complete() -> None:
            nonlocal stored, failure, result, predictions
            try:
                stored = ledger.completions.complete(claim, result, predictions).stored
            except StoreRejected as exc:
                result, predictions = without_refused(result, predictions, exc)
                complete()
            except HeadraceError as exc:
                if exc.retriable:
                    raise
                ledger.running.fail_job(claim, JobProblem.of(exc).text)
                failure = exc

        self._settle(complete)
        if not stored and failure is None:
            self._settle(lambda: self._remove_stray(claim, ledger, result))
        if failure is not None:
            return failure
        return result if stored else None

    def _remove_stray(self, claim: Claim, ledger: Ledger, result: ShardResult) -> None:
        """Remove the part of a shard that was lost, if the job has ended without it: nobody else would by now."""
        job = ledger.jobs.get(claim.job.id)
        if not result.part or job.state not in ENDED or job.spec.output == STORE:
            return
        last: Part | None = None
        while page := ledger.finishes.parts(job.id, last):
            if any(part.name == result.part for part in page):
                return
            last = page[-1]
        storage = self._desk.storages().of(job.spec.output)
        storage.delete(below(job.spec.output, result.part))

    def _give_back(self, claim: Claim, ledger: Ledger, exc: Exception) -> HeadraceError:
        """Leave a shard to others, or to a later attempt, because of something that may pass."""
        text = exc.message if isinstance(exc, HeadraceError) else f"{type(exc).__name__}: {first_line(exc)}"
        error = HeadraceError(text)
        if isinstance(exc, CancelledError):
            self._settle(lambda: ledger.running.release(claim))
            return error
        tries = claim.attempt - claim.deaths  # that many workers died over it says nothing about this trouble
        if tries >= MOST_ATTEMPTS and not isinstance(exc, Unavailable):
            why = f"shard {claim.shard_no} failed {tries} times, the last time so: {text}"
            self._settle(lambda: ledger.running.fail_job(claim, why))
            return error
        delay_s = min(DELAY_S * 2 ** min(max(tries - 1, 0), 10), LONGEST_DELAY_S)
        logger.warning("bulk.shard_put_off job=%s shard=%d error=%s", claim.job.id, claim.shard_no, text)
        self._settle(lambda: ledger.running.release(claim, delay_s))
        return error

    def _settle(self, work: Callable[[], object]) -> None:
        """Write to the ledger, again and again while Postgres is away, until the worker stops."""
        while not self._desk.attempt(lambda: (work(), True)[1]):
            if self._desk.stopping.is_set():
                return
