"""A client's way to bulk jobs: the ledger in Postgres, and tickets that wake workers. Every method blocks."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import redis

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError
from headrace.contracts.jobs import DryRun, Ticket
from headrace.contracts.message import queue_name
from headrace.contracts.package.manifest import ModelDirectory
from headrace.contracts.settings import Settings
from headrace.producers.jobs.attaching import Step, next_step, short
from headrace.producers.jobs.order import Location, Order, ScoreOptions, order_of
from headrace.producers.jobs.pinning import check_mapping, check_model, pin
from headrace.producers.jobs.progress import Estimator, Progress
from headrace.producers.jobs.reading import progress_of
from headrace.producers.transport.connections import broker_errors, connect_for_calls, connect_for_look
from headrace.queueing.consumer import serving
from headrace.queueing.submission import send_tickets

if TYPE_CHECKING:
    from headrace.results_store.jobs.ledger import Ledger
    from headrace.results_store.jobs.records import BadRow, JobRow, NewJob

_log: Final = logging.getLogger(__name__)

#: The shard of a ticket that asks a worker to plan.
_PLANNING: Final = -1


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
        ledger = self._ledger()
        now = pin(self._served(model), ModelDirectory(self._settings.models), model, order.version)
        check_mapping(order.spec, now.signature)
        from headrace.results_store.jobs.records import NewJob

        new = NewJob(
            spec=order.spec, options=order.options, version=now.version, package_sha256=now.checksum, name=order.name
        )
        job, created = ledger.create(new)
        step = None if created else next_step(job, now, order.wishes)
        if step is not None:
            job = self._go_on(job, step, order, new)
        self._wake(job)
        return job, step

    def _go_on(self, job: JobRow, step: Step, order: Order, new: NewJob) -> JobRow:
        if step is Step.RESTART:
            return self._ledger().restart(job.id, new)
        wanted = {name: getattr(order.options, name) for name in order.given}
        changed = msgspec.structs.replace(job.options, **wanted)
        if changed != job.options:
            job = self._ledger().change_options(job.id, changed)
        return self._ledger().resume(job.id) if step in {Step.RESUME, Step.ADD_NEW} else job

    def find(self, reference: str) -> JobRow:
        """Return a job by its id, a unique beginning of it, or its name. Raises NoSuchJob."""
        return self._ledger().find(reference)

    def newest(self, limit: int) -> list[JobRow]:
        """Return the jobs, the newest first."""
        return self._ledger().newest(limit)

    def progress(self, job_id: uuid.UUID, estimator: Estimator) -> Progress:
        """Read how far a job is. estimator: of whoever watches."""
        return progress_of(self._ledger(), job_id, estimator, time.monotonic())

    def pause(self, job_id: uuid.UUID) -> None:
        """Stop claiming shards; those that run publish what is done."""
        self._wake(self._ledger().pause(job_id))

    def resume(self, job_id: uuid.UUID) -> None:
        """Go on with what is missing."""
        self._wake(self._ledger().resume(job_id))

    def cancel(self, job_id: uuid.UUID) -> None:
        """Stop for good; what is done is kept."""
        self._wake(self._ledger().cancel(job_id))

    def retry(self, job_id: uuid.UUID) -> int:
        """Run the bad rows once more; return how many."""
        count = self._ledger().retry(job_id)
        self._wake(self._ledger().find(str(job_id)))
        return count

    def errors(self, job_id: uuid.UUID, limit: int) -> list[BadRow]:
        """Return bad rows in the order of the input."""
        return self._ledger().errors(job_id, limit)

    def sample(self, job_id: uuid.UUID) -> DryRun | None:
        """Return what a dry run found; None while it runs."""
        raw = self._ledger().sample(job_id)
        return None if raw is None else msgspec.convert(raw, DryRun)

    def is_served(self, model: str) -> bool:
        """Return whether a worker serves a model at present; True also if the broker doesn't tell."""
        try:
            with connect_for_look(self._url, self._settings.key_prefix) as client, broker_errors():
                return serving.is_served(client, queue_name(model))
        except BrokerUnavailable:
            return True

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
            return serving.served(client, queue_name(model))

    def _wake(self, job: JobRow) -> None:
        """Send the ticket that makes a worker look at a job; without a broker, workers find it by themselves later."""
        if self._settings.broker_url is None:
            return
        note = f"{short(job)} → {job.spec.model} {job.version}, planning"
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

    def _ledger(self) -> Ledger:
        with self._lock:
            if self._opened is None:
                self._opened = _open(self._settings)
            return self._opened


def _open(settings: Settings) -> Ledger:
    url = settings.require_database_url()
    try:
        from headrace.results_store.jobs.ledger import Ledger
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f'bulk jobs are kept in Postgres, and {exc.name} is not installed; run `pip install "headrace[store]"`'
        ) from exc
    return Ledger(url, settings.database_timeout_s)
