"""What the ledger knows of a job that has come to its end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.records import InputFile, JobError, JobRow, Part, Sums


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job whose shards have ended. state: what it becomes; succeeded, failed or cancelled.

    files: in the order of their numbers. parts: in the order of their slices; those without a name are passed over.
    errors: in the order of file number and row. Each may be iterated more than once, page by page.
    """

    job: JobRow
    state: JobState
    sums: Sums
    files: Callable[[], Iterable[InputFile]]
    parts: Callable[[], Iterable[Part]]
    errors: Callable[[], Iterable[JobError]]
    ended_at: dt.datetime

    @property
    def id(self) -> str:
        """The job's id as text."""
        return str(self.job.id)

    @property
    def key(self) -> str:
        """The job's key, in hex."""
        return self.job.spec.key().hex()
