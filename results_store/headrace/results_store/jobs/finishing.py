"""Finalizing: whose turn it is to publish the manifest of a job, what goes into it, and the end of the job."""

from __future__ import annotations

import uuid
from typing import Any, Final

from headrace.contracts.jobs import JobState
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import Claimant, JobError, Lease, Part, Sums
from headrace.results_store.jobs.rows import (
    JOB_COLUMNS,
    JOB_WIDTH,
    SLICE_COLUMNS,
    SLICE_FIELDS,
    job_of,
    slice_of,
    storable,
)

_LEAD: Final = f"""
    UPDATE headrace_jobs j
    SET leader = %(worker)s, leader_until = now() + %(lease_s)s * interval '1 second',
        leader_attempt = j.leader_attempt + 1
    WHERE j.id = (
        SELECT c.id FROM headrace_jobs c
        WHERE (c.state = 'finalizing' OR c.manifest_due) AND c.model = ANY(%(models)s)
          AND (c.leader_until IS NULL OR c.leader_until < now())
        ORDER BY c.priority DESC, c.created_at
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING {JOB_COLUMNS}, j.leader_attempt
"""  # noqa: S608

_RENEW: Final = """
    UPDATE headrace_jobs SET leader_until = now() + %(lease_s)s * interval '1 second'
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND (state = 'finalizing' OR manifest_due)
"""

_GIVE_UP: Final = """
    UPDATE headrace_jobs SET leader_until = now() + %(delay_s)s * interval '1 second'
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND (state = 'finalizing' OR manifest_due)
"""

#: A job that has ended otherwise keeps its state.
_FINISH: Final = """
    UPDATE headrace_jobs
    SET error = CASE WHEN state = 'finalizing' THEN %(error)s ELSE error END,
        state = CASE WHEN state = 'finalizing' THEN %(state)s ELSE state END,
        finished_at = coalesce(finished_at, now()), leader_until = NULL, manifest_due = false,
        manifest_etag = CASE WHEN %(etag)s = '' THEN manifest_etag ELSE %(etag)s END
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND (state = 'finalizing' OR manifest_due)
"""

_PARTS: Final = f"""
    SELECT s.shard_no, s.retry, s.part, s.part_etag, s.part_bytes, s.rows_ok, s.rows_bad, s.rows_skipped,
           {SLICE_COLUMNS}
    FROM headrace_job_shards s
    WHERE s.job_id = %(job)s AND s.state = 2
      AND (s.file_no, s.row_start, s.shard_no) > (%(file_no)s, %(row_start)s, %(shard_no)s)
    ORDER BY s.file_no, s.row_start, s.shard_no LIMIT %(most)s
"""  # noqa: S608

_ERROR_FIELDS: Final = JobError.__struct_fields__

_ERRORS: Final = f"""
    SELECT {", ".join(_ERROR_FIELDS)} FROM headrace_job_errors
    WHERE job_id = %(job)s AND (file_no, row) > (%(file_no)s, %(row)s) ORDER BY file_no, row LIMIT %(most)s
"""  # noqa: S608

_COUNTS: Final = """
    SELECT count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state <> 2),
           coalesce(sum(rows_ok) FILTER (WHERE state = 2), 0)::bigint,
           coalesce(sum(rows_bad) FILTER (WHERE state = 2), 0)::bigint,
           coalesce(sum(rows_skipped) FILTER (WHERE state = 2), 0)::bigint,
           coalesce(sum(rows) FILTER (WHERE state = 2 AND retry = 0), 0)::bigint,
           (SELECT count(*) FROM headrace_job_errors WHERE job_id = %(job)s),
           (SELECT CASE WHEN min(f.rows) < 0 THEN NULL ELSE coalesce(sum(f.rows), 0)::bigint END
            FROM headrace_job_files f WHERE f.job_id = %(job)s)
    FROM headrace_job_shards WHERE job_id = %(job)s
"""

#: Each shard begins where the one before it ended: in the same file, or at the beginning of the next that has rows.
_GAPS: Final = """
    SELECT count(*) FROM (
        SELECT file_no, row_start,
               lag(file_no) OVER before AS file_before, lag(files) OVER before AS files_before,
               lag(row_start) OVER before AS row_before, lag(rows) OVER before AS rows_before
        FROM headrace_job_shards WHERE job_id = %(job)s AND state = 2 AND retry = 0
        WINDOW before AS (ORDER BY file_no, row_start, rows, shard_no)
    ) s
    WHERE NOT CASE
        WHEN file_before IS NULL THEN row_start = 0 AND NOT EXISTS (
            SELECT FROM headrace_job_files f WHERE f.job_id = %(job)s AND f.file_no < s.file_no AND f.rows <> 0
        )
        WHEN file_no = file_before + files_before - 1 AND files_before = 1 THEN row_start = row_before + rows_before
        WHEN file_no = file_before + files_before - 1 THEN row_start > 0
        WHEN file_no < file_before + files_before THEN false
        ELSE row_start = 0 AND NOT EXISTS (
            SELECT FROM headrace_job_files f
            WHERE f.job_id = %(job)s AND f.file_no >= file_before + files_before AND f.file_no < s.file_no
              AND f.rows <> 0
        )
    END
"""

#: Pages hold no more rows than this, whose inputs may be 64 kB each.
ERRORS_A_PAGE: Final = 500


class Finishes:
    """Finalizes jobs. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def lead(self, claimant: Claimant, lease_s: float) -> Lease | None:
        """Return a job whose manifest this worker is to publish now; None when there is none.

        Its state is finalizing, or it was cancelled or failed, and the manifest is to say so. Any worker of the model
        may do it, whatever packages it serves.
        """
        led = self._connection.rows(
            _LEAD, {"worker": claimant.worker, "models": list(claimant.models), "lease_s": lease_s}
        )
        if not led:
            return None
        return Lease(job=job_of(led[0][:JOB_WIDTH]), attempt=led[0][JOB_WIDTH], lease_s=lease_s)

    def renew(self, lease: Lease) -> bool:
        """Keep a lease; return False if it was lost."""
        return self._connection.change(_RENEW, _lease_values(lease)) == 1

    def give_up(self, lease: Lease, delay_s: float = 0.0) -> None:
        """End a lease undone; nobody leads the job within `delay_s`."""
        self._connection.change(_GIVE_UP, {**_lease_values(lease), "delay_s": delay_s})

    def sums(self, lease: Lease) -> Sums:
        """Return what became of the rows of a job, counted from its shards, files and bad rows themselves."""
        values = {"job": lease.job.id}
        shards, left, ok, bad, skipped, rows_in, errors, rows_files = self._connection.rows(_COUNTS, values)[0]
        return Sums(
            shards=shards,
            shards_left=left,
            rows_ok=ok,
            rows_bad=bad,
            rows_skipped=skipped,
            rows_in=rows_in,
            errors=errors,
            rows_files=None if lease.job.spec.limit else rows_files,
            gaps=0 if left else self._connection.rows(_GAPS, values)[0][0],
        )

    def parts(self, job_id: uuid.UUID, after: Part | None = None, most: int = 1000) -> list[Part]:
        """Return shards that have ended, in the order of the input, up to a number of them; those after one only."""
        values = {"job": job_id, "most": most, "file_no": -1, "row_start": -1, "shard_no": -1}
        if after is not None:
            place = {"file_no": after.slice.file_no, "row_start": after.slice.row_start, "shard_no": after.shard_no}
            values |= place
        return [_part_of(row) for row in self._connection.rows(_PARTS, values)]

    def errors(self, job_id: uuid.UUID, after: JobError | None = None, most: int = ERRORS_A_PAGE) -> list[JobError]:
        """Return bad rows in the order of the input, up to a number of them; those after one only."""
        place = (-1, -1) if after is None else (after.file_no, after.row)
        values = {"job": job_id, "most": most, "file_no": place[0], "row": place[1]}
        rows = self._connection.rows(_ERRORS, values)
        return [JobError(**dict(zip(_ERROR_FIELDS, row, strict=True))) for row in rows]

    def finish(self, lease: Lease, state: JobState, manifest_etag: str = "", error: str = "") -> bool:
        """End a job whose manifest is published; return False if the lease was lost.

        state: succeeded or failed; a job that was cancelled or failed before stays so. error: why it failed.
        """
        values = {**_lease_values(lease), "state": state, "etag": manifest_etag, "error": storable(error)}
        return self._connection.change(_FINISH, values) == 1


def _lease_values(lease: Lease) -> dict[str, Any]:
    return {"job": lease.job.id, "attempt": lease.attempt, "lease_s": lease.lease_s}


def _part_of(row: tuple[Any, ...]) -> Part:
    width = len(row) - len(SLICE_FIELDS)
    shard_no, retry, name, etag, size, ok, bad, skipped = row[:width]
    return Part(
        shard_no=shard_no,
        retry=retry,
        slice=slice_of(row[width:]),
        name=name,
        etag=etag,
        bytes=size,
        rows_ok=ok,
        rows_bad=bad,
        rows_skipped=skipped,
    )
