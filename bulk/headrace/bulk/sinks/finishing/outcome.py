"""The outcome of a job: all that the ledger knows of it at its end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from headrace.bulk.sinks.base import FinalizingLost, OutputDamaged
from headrace.contracts.jobs import ENDED, JobState
from headrace.results_store.jobs.ledger import Ledger
from headrace.results_store.jobs.records import InputFile, JobError, JobRow, Lease, Part, Sums

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job whose shards have ended. state: what it becomes; succeeded, failed or cancelled.

    files: in the order of their numbers. parts: in the order of their slices; those without a name are passed over.
    errors: in the order of file number and row. Each may be iterated more than once, page by page. ended_at: a time of
    this attempt at finalizing. renew: keeps the lease; raises FinalizingLost.
    """

    job: JobRow
    state: JobState
    sums: Sums
    files: Callable[[], Iterable[InputFile]]
    parts: Callable[[], Iterable[Part]]
    errors: Callable[[], Iterable[JobError]]
    ended_at: dt.datetime
    renew: Callable[[], None]

    @property
    def id(self) -> str:
        """The job's id as text."""
        return str(self.job.id)

    @property
    def key(self) -> str:
        """The job's key, in hex."""
        return self.job.spec.key().hex()


def check_rows(outcome: Outcome) -> None:
    """Raise OutputDamaged if a job is to succeed and the rows that came out of it are not those that went in."""
    mismatch = outcome.sums.mismatch()
    if outcome.state is JobState.SUCCEEDED and mismatch:
        raise OutputDamaged(f"the rows of job {outcome.id} do not add up: {mismatch}; run it with --restart")


def outcome_of(ledger: Ledger, lease: Lease, now: dt.datetime) -> Outcome:
    """Return what a ledger knows of the job of a finalizer's lease, which is renewed with each page that is read.

    Only a job that is finalizing may succeed; one that was cancelled or failed before stays so.
    """

    def renew() -> None:
        if not ledger.finishes.renew(lease):
            raise FinalizingLost(f"another worker finalizes job {lease.job.id} by now")

    job = lease.job
    return Outcome(
        job=job,
        state=job.state if job.state in ENDED else JobState.SUCCEEDED,
        sums=ledger.finishes.sums(lease),
        files=lambda: _paged(lambda last: ledger.jobs.files(job.id, -1 if last is None else last.file_no), renew),
        parts=lambda: _paged(lambda last: ledger.finishes.parts(job.id, last), renew),
        errors=lambda: _paged(lambda last: ledger.finishes.errors(job.id, last), renew),
        ended_at=now,
        renew=renew,
    )


def _paged(read: Callable[[T | None], list[T]], renew: Callable[[], None]) -> Iterator[T]:
    last: T | None = None
    while page := read(last):
        renew()
        yield from page
        last = page[-1]
