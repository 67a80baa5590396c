"""Actions of people on a job: pause, resume, cancel, retry its bad rows, forget it, change its options."""

from __future__ import annotations

import uuid
from typing import Any, Final

from headrace.contracts.errors import HeadraceError
from headrace.contracts.jobs import ENDED, JobOptions, JobState
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.job_store import JOINING_TIME, UnknownJob, checked_options
from headrace.results_store.jobs.rows import SLICE_FIELDS
from headrace.results_store.jobs.settling import STOPPABLE, lock, settle, stop

_PAUSE: Final = "UPDATE headrace_jobs SET state = 'paused', leader_until = NULL WHERE id = %(id)s"

#: A job joins the others: it begins where the least served of them is, unless it has had more.
_JOIN: Final = f"""
    UPDATE headrace_jobs j
    SET start_time_s = greatest(j.start_time_s + served.s / j.weight, {JOINING_TIME}) - served.s / %(weight)s,
        priority = %(priority)s, weight = %(weight)s
    FROM (SELECT coalesce(sum(served_s), 0) AS s FROM headrace_job_workers WHERE job_id = %(id)s) served
    WHERE j.id = %(id)s
"""  # noqa: S608

_GO_ON: Final = """
    UPDATE headrace_jobs
    SET state = CASE WHEN plan_done THEN 'running' ELSE 'planning' END,
        error = '', finished_at = NULL, manifest_due = false, leader_until = NULL
    WHERE id = %(id)s
    RETURNING priority, weight
"""

_REVIVE: Final = """
    UPDATE headrace_job_shards SET state = 0, lease_until = NULL, worker = '', claimed_at = NULL
    WHERE job_id = %(id)s AND state = 3
"""

#: Bad rows of shards that have ended go to new shards of the same slices; the others have such a shard already.
_NUMBER_RETRIES: Final = """
    CREATE TEMPORARY TABLE headrace_retries ON COMMIT DROP AS
    SELECT s.shard_no AS old_no,
           j.next_shard - 1 + row_number() OVER (ORDER BY s.file_no, s.row_start, s.shard_no) AS new_no, errors.rows
    FROM (SELECT shard_no, count(*) AS rows FROM headrace_job_errors WHERE job_id = %(id)s GROUP BY shard_no) errors
    JOIN headrace_job_shards s ON s.job_id = %(id)s AND s.shard_no = errors.shard_no AND s.state = 2
    JOIN headrace_jobs j ON j.id = %(id)s
"""

#: Their bytes have been counted; they take as long as their share of the rows, and reading takes longer.
_RETRIED: Final = {
    "size_bytes": "0",
    "est_s": "s.est_s * least(1, 0.1 + r.rows / greatest(1.0, s.rows_ok + s.rows_bad + s.rows_skipped))",
}

_INSERT_RETRIES: Final = f"""
    INSERT INTO headrace_job_shards (job_id, shard_no, retry, {", ".join(SLICE_FIELDS)})
    SELECT s.job_id, r.new_no, %(retry)s, {", ".join(_RETRIED.get(name, f"s.{name}") for name in SLICE_FIELDS)}
    FROM headrace_retries r
    JOIN headrace_job_shards s ON s.job_id = %(id)s AND s.shard_no = r.old_no
"""  # noqa: S608

_REFER: Final = """
    UPDATE headrace_job_errors e SET shard_no = r.new_no
    FROM headrace_retries r WHERE e.job_id = %(id)s AND e.shard_no = r.old_no
"""

_BEGIN_RETRY: Final = """
    UPDATE headrace_jobs
    SET retry = retry + 1, next_shard = next_shard + (SELECT count(*) FROM headrace_retries)
    WHERE id = %(id)s RETURNING retry
"""

_FORGET: Final = "UPDATE headrace_jobs SET key = NULL, manifest_due = false WHERE id = %(id)s"

_REOPEN: Final = "UPDATE headrace_jobs SET plan_done = false, bytes_total = NULL WHERE id = %(id)s"

_CHANGE: Final = """
    UPDATE headrace_jobs
    SET max_errors = %(max_errors)s, workers = %(workers)s, max_rows_per_s = %(max_rows_per_s)s WHERE id = %(id)s
"""


class WrongState(HeadraceError):
    """The state of the job doesn't allow that; `headrace jobs show ID` tells it."""


class JobControl:
    """Changes what becomes of a job. For one thread. Calls raise UnknownJob, and WrongState where it can't be done."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def pause(self, job_id: uuid.UUID) -> None:
        """Start no more shards; those that run publish what is done."""
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state is JobState.PAUSED:
                return
            if state not in (JobState.PLANNING, JobState.RUNNING):
                raise WrongState(f"job {job_id} is {state}; only one that is planned or runs can be paused")
            connection.execute(_PAUSE, {"id": job_id})

    def resume(self, job_id: uuid.UUID) -> JobState:
        """Go on with a job that is paused, or with what is missing of one that was cancelled or failed.

        Returns its state. Bad rows stay bad; see `retry`. A job that runs is left as it is.
        """
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state in (JobState.PLANNING, JobState.RUNNING):
                return state
            if state not in (JobState.PAUSED, JobState.FAILED, JobState.CANCELLED):
                raise WrongState(f"job {job_id} is {state}; only one that is paused, failed or cancelled can go on")
            _go_on(connection, job_id)
        return settle(self._connection, job_id) or state

    def cancel(self, job_id: uuid.UUID) -> JobState:
        """Stop a job for good, keep what is done, and return its state: cancelling as long as shards run."""
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state not in (*STOPPABLE, JobState.CANCELLING, JobState.CANCELLED):
                raise WrongState(f"job {job_id} is {state}; nothing is left to cancel")
            stop(connection, job_id, JobState.CANCELLING)
        return settle(self._connection, job_id) or state

    def retry(self, job_id: uuid.UUID) -> int:
        """Run the bad rows of a job that has ended once more, and what is missing; return how many bad rows."""
        values: dict[str, Any] = {"id": job_id}
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state not in ENDED:
                raise WrongState(f"job {job_id} is {state}; bad rows can be retried when it has ended")
            connection.execute(_NUMBER_RETRIES, values)
            values["retry"] = connection.execute(_BEGIN_RETRY, values).fetchall()[0][0]
            connection.execute(_INSERT_RETRIES, values)
            rows = connection.execute(_REFER, values).rowcount
            _go_on(connection, job_id)
        settle(self._connection, job_id)
        return rows

    def forget(self, job_id: uuid.UUID) -> None:
        """Let the same job be created anew; this one is cancelled unless it has ended, and stays as history."""
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state is JobState.FINALIZING:
                raise WrongState(f"job {job_id} is finalizing; try again in a moment")
            stop(connection, job_id, JobState.CANCELLING)
            connection.execute(_FORGET, {"id": job_id})
        settle(self._connection, job_id)

    def reopen_plan(self, job_id: uuid.UUID) -> None:
        """Have a job planned further from its last cursor, since there is more input by now."""
        with self._connection.transaction() as connection:
            state = _locked(connection, job_id)
            if state in (JobState.CANCELLING, JobState.FINALIZING):
                raise WrongState(f"job {job_id} is {state}; try again in a moment")
            connection.execute(_REOPEN, {"id": job_id})
            _go_on(connection, job_id)

    def change(self, job_id: uuid.UUID, options: JobOptions) -> None:
        """Change the options of a job, from its next shard on. Raises InvalidRequest when one makes no sense."""
        values = {**checked_options(options), "id": job_id}
        with self._connection.transaction() as connection:
            _locked(connection, job_id)
            connection.execute(_JOIN, values)
            connection.execute(_CHANGE, values)


def _locked(connection: BoundedConnection, job_id: uuid.UUID) -> JobState:
    state = lock(connection, job_id)
    if state is None:
        raise UnknownJob(f"there is no job {job_id}; `headrace jobs list` shows all")
    return state


def _go_on(connection: BoundedConnection, job_id: uuid.UUID) -> None:
    """Have what is missing of a job run, in the transaction that has its row locked."""
    priority, weight = connection.execute(_GO_ON, {"id": job_id}).fetchall()[0]
    connection.execute(_JOIN, {"id": job_id, "priority": priority, "weight": weight})
    connection.execute(_REVIVE, {"id": job_id})
