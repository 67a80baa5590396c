"""The state of a job as it follows from that of its shards, and the stopping of a job.

Locks are taken in this order, so that nobody waits in a circle: the row of the job, then rows of its shards, then its
bad rows, then the counters of a worker. Whoever changes more than one shard holds the row of the job. What waits for
nobody (a claim, which skips locked rows; a heartbeat, a completion without a rest: one shard each) does without it.
"""

from __future__ import annotations

import uuid
from typing import Final

from headrace.contracts.jobs import JobState, parse_max_errors
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.connection import LedgerConnection

_LOCK: Final = "SELECT state FROM headrace_jobs WHERE id = %(id)s FOR NO KEY UPDATE"

#: What has no key writes no manifest: a dry run has no output, and that of a job that was restarted goes to its
#: successor.
_STOP: Final = """
    UPDATE headrace_jobs
    SET state = %(state)s, error = %(error)s,
        finished_at = CASE WHEN %(ended)s THEN now() END, manifest_due = %(ended)s AND key IS NOT NULL
    WHERE id = %(id)s AND state = ANY(%(from)s)
"""

#: Pending shards must be gone when the job has stopped: a claim that began before looks at them once more.
_DROP_WAITING: Final = """
    UPDATE headrace_job_shards SET state = 3
    WHERE job_id = %(id)s AND (state = 0 OR (state = 1 AND lease_until < now()))
"""

_DROP_LAPSED: Final = """
    UPDATE headrace_job_shards SET state = 3 WHERE job_id = %(id)s AND state = 1 AND lease_until < now()
"""

_END_CANCELLED: Final = """
    UPDATE headrace_jobs j SET state = 'cancelled', finished_at = now(), manifest_due = j.key IS NOT NULL
    WHERE j.id = %(id)s AND j.state = 'cancelling'
      AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 1)
"""

_FINALIZE: Final = """
    UPDATE headrace_jobs j SET state = 'finalizing', leader_until = NULL
    WHERE j.id = %(id)s AND j.state = 'running' AND j.plan_done
      AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 0)
      AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 1)
"""

_STATE: Final = """
    SELECT j.state, j.plan_done
        AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 0)
        AND NOT EXISTS (SELECT FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 1)
    FROM headrace_jobs j WHERE j.id = %(id)s
"""

_BAD_SO_FAR: Final = """
    SELECT j.max_errors, coalesce(sum(w.rows_bad), 0)::bigint,
           coalesce(sum(w.rows_ok + w.rows_bad + w.rows_skipped), 0)::bigint
    FROM headrace_jobs j LEFT JOIN headrace_job_workers w ON w.job_id = j.id
    WHERE j.id = %(id)s GROUP BY j.max_errors
"""

#: States in which a job can be stopped.
STOPPABLE: Final = (JobState.PLANNING, JobState.RUNNING, JobState.PAUSED)


def lock(connection: BoundedConnection, job_id: uuid.UUID) -> JobState | None:
    """Lock the row of a job until the transaction ends; return its state. None: there is no such job."""
    row = connection.execute(_LOCK, {"id": job_id}).fetchone()
    return None if row is None else JobState(row[0])


def stop(connection: BoundedConnection, job_id: uuid.UUID, state: JobState, error: str = "") -> bool:
    """Stop a job, in the transaction of the caller; return False where it is none that can be stopped.

    state: cancelling or failed. Shards that run go on until their workers ask.
    """
    values = {
        "id": job_id,
        "state": state,
        "error": error,
        "ended": state is JobState.FAILED,
        "from": list(STOPPABLE if state is JobState.CANCELLING else (*STOPPABLE, JobState.FINALIZING)),
    }
    if connection.execute(_STOP, values).rowcount == 0:
        return False
    connection.execute(_DROP_WAITING, values)
    return True


def settle(connection: LedgerConnection, job_id: uuid.UUID) -> JobState | None:
    """Move a job on when no shard of it is left, and return its state; call it after what may have been the last.

    A statement of its own, after the commit: of two that end at the same moment, neither sees that of the other before.
    None: there is no such job.
    """
    values = {"id": job_id}
    found = connection.rows(_STATE, values)
    if not found:
        return None
    state, all_ended = JobState(found[0][0]), found[0][1]
    if state is JobState.RUNNING and all_ended:
        if stop_at_bound(connection, job_id):
            return JobState.FAILED
        return JobState.FINALIZING if connection.change(_FINALIZE, values) else state
    if state is JobState.CANCELLING:
        with connection.transaction() as locked:
            if lock(locked, job_id) is JobState.CANCELLING:
                locked.execute(_DROP_LAPSED, values)
                if locked.execute(_END_CANCELLED, values).rowcount:
                    return JobState.CANCELLED
    return state


def stop_at_bound(connection: LedgerConnection, job_id: uuid.UUID) -> bool:
    """Fail a job if it has more bad rows than its options allow; return whether it had."""
    for max_errors, bad, rows in connection.rows(_BAD_SO_FAR, {"id": job_id}):
        if parse_max_errors(max_errors).exceeded(bad, rows):
            error = (
                f"{bad} of {rows} rows so far are bad, more than --max-errors {max_errors} allows; see "
                f"`headrace jobs show {job_id}`, then resume the job with a higher bound or correct the input"
            )
            with connection.transaction() as transaction:
                return stop(transaction, job_id, JobState.FAILED, error)
    return False
