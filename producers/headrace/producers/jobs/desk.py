"""A client's way to bulk jobs: the ledger in Postgres, and tickets that wake workers. Every method blocks."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import redis

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError
from headrace.contracts.jobs import DryRun, JobState, Ticket, score_queue
from headrace.contracts.message import queue_name
from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import Settings
from headrace.producers.jobs.attaching import Step, next_step, short
from headrace.producers.jobs.order import Location, Order, ScoreOptions, order_of
from headrace.producers.jobs.pinning import Pin, check_mapping, check_model, pin
from headrace.producers.jobs.rechecking import check_unchanged
from headrace.producers.transport.connections import broker_errors, connect_for_calls, connect_for_look
from headrace.producers.transport.serving import problem_of
from headrace.queueing.consumer import serving
from headrace.queueing.submission import send_tickets

if TYPE_CHECKING:
    from headrace.results_store.jobs.ledger import Ledger
    from headrace.results_store.jobs.progress import Progress
    from headrace.results_store.jobs.records import JobError, JobRow, NewJob

_log: Final = logging.getLogger(__name__)

#: The shard of a ticket that asks a worker to plan.
_PLANNING: Final = -1

#: Shards of a job that is being cancelled stop within a batch, those of a dead worker within a lease; the latter is
#: not waited for. The files at the end of a job are written within seconds.
_PASSING_S: Final = 10.0
_LOOK_S: Final = 0.1
_PASSING: Final = frozenset({JobState.CANCELLING, JobState.FINALIZING})

#: Steps that change what becomes of a job.
_CHANGES: Final = frozenset({Step.RESUME, Step.RESTART, Step.ADD_NEW})


class JobDesk:
    """Creates, finds and steers jobs; usable from several threads and after a fork. Connects when first needed."""

    def __init__(self, settings: Settings) -> None:
        """settings: with a database; without a broker all but `score` works, and workers hear of it a little later."""
        self._settings = settings
        self.renew()

    def renew(self) -> None:
        """Start afresh, as in a forked child."""
        self._lock = threading.Lock()
        self._opened: Ledger | None = None
        self._broker: redis.Redis | None = None

    def score(
        self, model: str, inputs: Location | Sequence[Location], output: Location, options: ScoreOptions
    ) -> tuple[JobRow, Step | None]:
        """Create a job, or go on with the one that is there; return it with the step taken, None for a new job.

        Raises InvalidRequest (UnknownModel, SignatureMismatch), JobMoved, ConfigurationError, BrokerUnavailable,
        StoreUnavailable.
        """
        check_model(model)
        order = order_of(model, inputs, output, options, Path.cwd())
        now = pin(self._served(model), ModelDirectory(self._settings.models), model, order.version)
        check_mapping(order.spec, now.signature)
        with self._ledger() as ledger:
            job, step = self._placed(ledger, order, now)
        self._wake(job)
        return job, step

    def _placed(self, ledger: Ledger, order: Order, now: Pin) -> tuple[JobRow, Step | None]:
        from headrace.results_store.jobs.records import NewJob

        new = NewJob(
            spec=order.spec, options=order.options, version=now.version, package_sha256=now.checksum, name=order.name
        )
        job, created = ledger.jobs.create(new)
        if created:
            return job, None
        step = next_step(job, now, order.wishes)
        if step is Step.REPORT:
            check_unchanged(ledger, job, short(job))
        return self._go_on(ledger, job, step, order, new), step

    def _go_on(self, ledger: Ledger, job: JobRow, step: Step, order: Order, new: NewJob) -> JobRow:
        if step in _CHANGES:
            _await_passing(ledger, job.id)
        if step is Step.RESTART:
            ledger.control.forget(job.id)
            return ledger.jobs.create(msgspec.structs.replace(new, replaces=(job.id, *job.replaces)))[0]
        wanted = {name: getattr(order.options, name) for name in order.given}
        changed = msgspec.structs.replace(job.options, **wanted)
        if changed != job.options:
            ledger.control.change(job.id, changed)
        if step is Step.RESUME:
            ledger.control.resume(job.id)
        elif step is Step.ADD_NEW:
            ledger.control.reopen_plan(job.id)
        return ledger.jobs.get(job.id)

    def find(self, reference: str) -> JobRow:
        """Return a job by its id, the beginning or end of one, or its name. Raises UnknownJob, AmbiguousJob."""
        with self._ledger() as ledger:
            return ledger.jobs.find(reference)

    def newest(self, limit: int) -> list[Progress]:
        """Return how far the jobs are, the newest first."""
        with self._ledger() as ledger:
            return ledger.progress.newest(limit)

    def progress(self, job_id: uuid.UUID) -> Progress:
        """Read how far a job is."""
        with self._ledger() as ledger:
            return ledger.progress.of(job_id)

    def pause(self, job: JobRow) -> None:
        """Stop claiming shards; those that run publish what is done."""
        with self._ledger() as ledger:
            ledger.control.pause(job.id)

    def resume(self, job: JobRow) -> None:
        """Go on with what is missing."""
        with self._ledger() as ledger:
            ledger.control.resume(job.id)
        self._wake(job)

    def cancel(self, job: JobRow) -> None:
        """Stop for good; what is done is kept."""
        with self._ledger() as ledger:
            ledger.control.cancel(job.id)
        self._wake(job)

    def retry(self, job: JobRow) -> int:
        """Run the bad rows once more; return how many."""
        with self._ledger() as ledger:
            count = ledger.control.retry(job.id)
        self._wake(job)
        return count

    def errors(self, job_id: uuid.UUID, limit: int) -> list[JobError]:
        """Return bad rows in the order of the input."""
        with self._ledger() as ledger:
            return ledger.finishes.errors(job_id, most=limit)

    def files(self, job_id: uuid.UUID, numbers: Iterable[int]) -> dict[int, str]:
        """Return the URIs of input files by their numbers."""
        with self._ledger() as ledger:
            found = [file for number in set(numbers) for file in ledger.jobs.files(job_id, number - 1, 1)]
        return {file.file_no: file.uri for file in found}

    def sample(self, job_id: uuid.UUID) -> DryRun | None:
        """Return what a dry run found; None while it runs."""
        with self._ledger() as ledger:
            return ledger.dry_runs.of(job_id)

    def is_served(self, model: str) -> bool:
        """Return whether a worker takes bulk jobs of a model at present; True also if the broker doesn't tell."""
        try:
            with connect_for_look(self._url, self._settings.key_prefix) as client, broker_errors():
                return serving.is_served(client, score_queue(model))
        except BrokerUnavailable:
            return True

    def problem_of(self, model: str) -> str:
        """Return why workers get no answers of a model at present; "" if they, or the broker, report nothing."""
        if self._settings.broker_url is None:
            return ""
        return problem_of(self._url, model, self._settings.key_prefix)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            if self._broker is not None:
                self._broker.close()
            self._opened = self._broker = None

    @property
    def _url(self) -> str:
        return self._settings.require_broker_url()

    def _served(self, model: str) -> list[serving.Served]:
        with connect_for_look(self._url, self._settings.key_prefix) as client, broker_errors():
            # A worker may take requests only, or bulk jobs only; what runs the job counts.
            return serving.served(client, score_queue(model)) or serving.served(client, queue_name(model))

    def _wake(self, job: JobRow) -> None:
        """Send the ticket that makes a worker look at a job; without a broker, workers find it by themselves later."""
        if self._settings.broker_url is None:
            return
        note = f"{job.spec.title} {job.version}, planning"
        ticket = Ticket(str(job.id), _PLANNING)
        try:
            with broker_errors():
                send_tickets(self._client(), job.spec.model, [(ticket, note)], origin=f"{os.getpid()}")
        except BrokerUnavailable as exc:
            _log.warning("ticket_not_sent job=%s error=%r", job.id, exc.message)

    def _client(self) -> redis.Redis:
        with self._lock:
            if self._broker is None:
                self._broker = connect_for_calls(self._url, self._settings.key_prefix, self._settings.broker_timeout_s)
            return self._broker

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        """Lend the ledger, which is for one thread at a time."""
        with self._lock:
            if self._opened is None:
                self._opened = _open(self._settings)
            yield self._opened


def _await_passing(ledger: Ledger, job_id: uuid.UUID) -> None:
    """Wait for a while for a job that is being cancelled or finalized: nothing else can become of it before."""
    until = time.monotonic() + _PASSING_S
    while ledger.jobs.get(job_id).state in _PASSING and time.monotonic() < until:
        time.sleep(_LOOK_S)


def _open(settings: Settings) -> Ledger:
    url = settings.require_database_url()
    try:
        from headrace.results_store.jobs.ledger import Ledger
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f'bulk jobs are kept in Postgres, and {exc.name} is not installed; run `pip install "headrace[store]"`'
        ) from exc
    return Ledger(url, settings.database_timeout_s)
