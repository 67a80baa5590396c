"""A bulk job as its creator holds it."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.contracts.jobs import ENDED, DryRun, JobOptions, JobState, ScoreSpec
from headrace.producers.jobs.attaching import Step, short, why_failed
from headrace.producers.jobs.desk import JobDesk
from headrace.producers.jobs.errors import JobCancelled, JobFailed, JobTimeout

if TYPE_CHECKING:
    from headrace.results_store.jobs.progress import Progress
    from headrace.results_store.jobs.records import JobError, JobRow

#: How often `watch` and `wait` read the ledger. Each reading is one query over sums.
WATCH_S: Final = 0.5

#: Jobs that a client lists by default.
LISTED: Final = 100

#: Bad rows that `errors` returns by default.
ERRORS: Final = 100


class JobBase:
    """The facts of a job that nobody has to be asked for. step: taken with one that was there; None if it is new."""

    def __init__(self, desk: JobDesk, row: JobRow, step: Step | None = None) -> None:
        """desk: stays the client's. row: as the ledger had it."""
        self._desk = desk
        self._row = row
        self.step = step
        self._share = 0.0

    @property
    def uuid(self) -> uuid.UUID:
        """The id."""
        return self._row.id

    @property
    def id(self) -> str:
        """The id, as text."""
        return str(self._row.id)

    @property
    def name(self) -> str:
        """The name, or the end of the id where it has none: either finds the job."""
        return short(self._row)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._row.spec.model

    @property
    def version(self) -> str:
        """The version that the job is pinned to."""
        return self._row.version

    @property
    def output(self) -> str:
        """The folder or URI of the output, or `store`."""
        return self._row.spec.output

    @property
    def spec(self) -> ScoreSpec:
        """The definition of what the job computes."""
        return self._row.spec

    @property
    def options(self) -> JobOptions:
        """How the job was to be run when it was read."""
        return self._row.options

    @property
    def created_at(self) -> dt.datetime:
        """When the job was created."""
        return self._row.created_at

    def __repr__(self) -> str:
        """Return id, model and output."""
        return f"<{type(self).__name__} {self.id} {self.model} → {self.output}>"

    def _read(self) -> Progress:
        """Read the ledger; `share` never goes down for whoever watches."""
        progress = self._desk.progress(self._row.id)
        if progress.share is None:
            return progress
        # Of two readings at the same time by two threads either may come first; a maximum is right in any order.
        self._share = max(self._share, progress.share)
        return msgspec.structs.replace(progress, share=self._share)


def has_ended(progress: Progress) -> bool:
    """Return whether nothing more happens by itself; a paused job waits for somebody."""
    return progress.job.state in ENDED


def check_end(progress: Progress) -> Progress:
    """Return the progress of a job that succeeded. Raises JobFailed, JobCancelled."""
    job = progress.job
    if job.state is JobState.FAILED:
        raise JobFailed(f"job {short(job)} failed: {why_failed(job.error)}")
    if job.state is JobState.CANCELLED:
        raise JobCancelled(
            f"job {short(job)} was cancelled after {progress.rows_done:,} rows, which are kept; the same command "
            "again runs what is missing"
        )
    return progress


def not_in_time(progress: Progress, timeout_s: float, problem: str) -> JobTimeout:
    """Return the error of a job that has not ended in time. problem: see `Job.problem`."""
    done = "" if progress.share is None else f", {progress.share:.1%} done"
    reported = f"; its worker reports: {problem}" if problem else ""
    return JobTimeout(
        f"job {short(progress.job)} is {progress.job.state} after {timeout_s:g} s{done}; it goes on{reported}"
    )


class Job(JobBase):
    """A bulk job: `Client.score` returns it. It goes on without its client; any process finds it by its id or name."""

    def status(self) -> str:
        """Return the state: planning, running, paused, finalizing, succeeded, failed, cancelling, cancelled."""
        return self.progress().job.state

    def progress(self) -> Progress:
        """Read how far the job is."""
        return self._read()

    def watch(self, every_s: float = WATCH_S) -> Iterator[Progress]:
        """Yield the progress now and then, the last time when the job has ended."""
        while True:
            progress = self._read()
            yield progress
            if has_ended(progress):
                return
            time.sleep(every_s)

    def wait(self, timeout_s: float | None = None) -> Progress:
        """Wait until the job has succeeded, and return its last progress; rows may be bad (`rows_bad`).

        Raises JobFailed, JobCancelled; JobTimeout after `timeout_s`, when the job goes on.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for progress in self.watch():
            if not has_ended(progress) and until is not None and time.monotonic() >= until:
                raise not_in_time(progress, timeout_s or 0.0, self.problem())
        return check_end(progress)

    def is_served(self) -> bool:
        """Return whether a worker takes bulk jobs of this model at present; True also if the broker doesn't tell."""
        return self._desk.is_served(self.model)

    def problem(self) -> str:
        """Return why the workers get no answers of this model at present, as when its model server is misconfigured.

        "" if they report nothing.
        """
        return self._desk.problem_of(self.model)

    def pause(self) -> None:
        """Let running shards publish what is done, and start no others until `resume`."""
        self._desk.pause(self._row)

    def resume(self) -> None:
        """Go on with a paused, failed or cancelled job; only what is missing runs."""
        self._desk.resume(self._row)

    def cancel(self) -> None:
        """Stop the job; what is done is kept."""
        self._desk.cancel(self._row)

    def retry(self) -> int:
        """Run the bad rows of a job that has ended once more; return how many."""
        return self._desk.retry(self._row)

    def errors(self, limit: int = ERRORS) -> list[JobError]:
        """Return bad rows in the order of the input."""
        return self._desk.errors(self._row.id, limit)

    def files(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the URIs of input files by their numbers, `file_no` of bad rows."""
        return self._desk.files(self._row.id, numbers)

    def sample(self) -> DryRun | None:
        """Return what a dry run found; None while it runs, and of other jobs."""
        return self._desk.sample(self._row.id)
