"""Planning: whose turn it is to plan a job, and the pages of its plan."""

from __future__ import annotations

from typing import Any, Final

from headrace.contracts.jobs import JobState
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import Claimant, Pace, Page, PlanLease, Slice
from headrace.results_store.jobs.rows import (
    FILE_FIELDS,
    JOB_COLUMNS,
    JOB_WIDTH,
    SLICE_FIELDS,
    columns_of,
    job_of,
    storable,
)
from headrace.results_store.jobs.settling import lock, settle, stop

_LEAD: Final = f"""
    UPDATE headrace_jobs j
    SET leader = %(worker)s, leader_until = now() + %(lease_s)s * interval '1 second',
        leader_attempt = j.leader_attempt + 1
    WHERE j.id = (
        SELECT c.id FROM headrace_jobs c
        WHERE c.state = 'planning' AND c.model = ANY(%(models)s)
          AND (%(packages)s::text[] IS NULL OR c.package_sha256 = ANY(%(packages)s::text[]))
          AND (c.leader_until IS NULL OR c.leader_until < now())
          AND %(wanted)s > (
              SELECT count(*) FROM (
                  SELECT FROM headrace_job_shards s WHERE s.job_id = c.id AND s.state = 0 LIMIT %(wanted)s
              ) few
          )
        ORDER BY c.priority DESC, c.created_at
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING {JOB_COLUMNS}, j.leader_attempt, j.plan_cursor,
        (SELECT coalesce(max(f.file_no) + 1, 0) FROM headrace_job_files f WHERE f.job_id = j.id)
"""  # noqa: S608

_PACE: Final = """
    SELECT coalesce(sum(w.rows_ok + w.rows_bad + w.rows_skipped) / nullif(sum(w.served_s), 0), 0),
           coalesce(sum(w.size_bytes) / nullif(sum(w.served_s), 0), 0),
           coalesce(sum(w.shards), 0),
           (SELECT count(*) FROM headrace_job_shards s WHERE s.job_id = %(job)s AND s.state = 0),
           (SELECT count(*) FROM headrace_job_shards s WHERE s.job_id = %(job)s AND s.state = 1),
           (SELECT count(DISTINCT s.worker) FROM headrace_job_shards s WHERE s.job_id = %(job)s AND s.state = 1)
    FROM headrace_job_workers w WHERE w.job_id = %(job)s
"""

#: NULL rows_planned stays NULL.
_ADVANCE: Final = """
    UPDATE headrace_jobs
    SET plan_cursor = %(cursor)s, plan_done = %(done)s,
        state = CASE WHEN %(done)s THEN 'running' ELSE state END,
        leader_until = CASE WHEN %(done)s THEN NULL ELSE now() + %(lease_s)s * interval '1 second' END,
        next_shard = next_shard + %(shards)s, rows_planned = rows_planned + %(rows)s,
        bytes_planned = bytes_planned + %(bytes)s, bytes_total = coalesce(%(bytes_total)s, bytes_total),
        notes = coalesce(%(notes)s::text[], notes)
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND state = 'planning'
    RETURNING next_shard - %(shards)s
"""

_RENEW: Final = """
    UPDATE headrace_jobs SET leader_until = now() + %(lease_s)s * interval '1 second'
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND state = 'planning'
"""

_YIELD: Final = """
    UPDATE headrace_jobs SET leader_until = NULL
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND state = 'planning'
"""

_IS_LEADER: Final = """
    SELECT FROM headrace_jobs
    WHERE id = %(job)s AND leader_attempt = %(attempt)s AND state IN ('planning', 'paused')
"""

_INSERT_FILES: Final = f"""
    INSERT INTO headrace_job_files (job_id, {", ".join(FILE_FIELDS)})
    SELECT %(job)s, unnest(%(file_no)s::int[]), unnest(%(uri)s::text[]), unnest(%(format)s::text[]),
           unnest(%(size)s::bigint[]), unnest(%(mtime_ns)s::bigint[]), unnest(%(etag)s::text[]),
           unnest(%(rows)s::bigint[])
    ON CONFLICT (job_id, file_no) DO UPDATE SET rows = excluded.rows
"""

_COPY_SHARDS: Final = f"COPY headrace_job_shards (job_id, shard_no, {', '.join(SLICE_FIELDS)}) FROM STDIN"


class Plans:
    """Plans jobs, one page after the other. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def lead(self, claimant: Claimant, lease_s: float, wanted: int) -> PlanLease | None:
        """Return a job that this worker is to plan now; None when there is none.

        wanted: only jobs with fewer shards than this that wait. Nobody else plans the job until the lease has passed
        without a page, or the holder yields.
        """
        values = {
            "worker": claimant.worker,
            "models": list(claimant.models),
            "packages": None if claimant.packages is None else list(claimant.packages),
            "lease_s": lease_s,
            "wanted": wanted,
        }
        led = self._connection.rows(_LEAD, values)
        if not led:
            return None
        job = job_of(led[0][:JOB_WIDTH])
        attempt, cursor, next_file = led[0][JOB_WIDTH:]
        rows_per_s, bytes_per_s, *counts = self._connection.rows(_PACE, {"job": job.id})[0]
        shards, pending, running, workers = map(int, counts)
        return PlanLease(
            job=job,
            attempt=attempt,
            lease_s=lease_s,
            cursor=cursor,
            next_file=next_file,
            pace=Pace(
                rows_per_s=float(rows_per_s),
                bytes_per_s=float(bytes_per_s),
                shards=shards,
                pending=pending,
                running=running,
                workers=workers,
            ),
        )

    def add_page(self, lease: PlanLease, page: Page) -> bool:
        """Add a page to the plan and renew the lease, all or nothing; return False if the lease was lost.

        A paused or stopped job is planned no further. Files that are there already get their number of rows.
        """
        with self._connection.transaction() as connection:
            advanced = connection.execute(_ADVANCE, _page_values(lease, page)).fetchone()
            if advanced is None:
                return False
            if page.files:
                connection.execute(_INSERT_FILES, {"job": lease.job.id, **columns_of(page.files, FILE_FIELDS)})
            _copy_shards(connection, lease, page.slices, advanced[0])
        if page.done:
            settle(self._connection, lease.job.id)
        return True

    def renew(self, lease: PlanLease) -> bool:
        """Keep a lease while a page takes long; return False if it was lost."""
        return self._connection.change(_RENEW, _lease_values(lease)) == 1

    def give_up(self, lease: PlanLease) -> None:
        """End a lease before its time, since enough is planned or the worker stops."""
        self._connection.change(_YIELD, _lease_values(lease))

    def fail(self, lease: PlanLease, error: str) -> bool:
        """Fail a job that can't be planned; return False if the lease was lost. error: the cause, with a remedy."""
        with self._connection.transaction() as connection:
            lock(connection, lease.job.id)
            if connection.execute(_IS_LEADER, _lease_values(lease)).rowcount == 0:
                return False
            return stop(connection, lease.job.id, JobState.FAILED, storable(error))


def _lease_values(lease: PlanLease) -> dict[str, Any]:
    return {"job": lease.job.id, "attempt": lease.attempt, "lease_s": lease.lease_s}


def _page_values(lease: PlanLease, page: Page) -> dict[str, Any]:
    counted = all(part.rows >= 0 for part in page.slices)
    return {
        **_lease_values(lease),
        "cursor": page.cursor,
        "done": page.done,
        "shards": len(page.slices),
        "rows": sum(part.rows for part in page.slices) if counted else None,
        "bytes": sum(part.size_bytes for part in page.slices),
        "bytes_total": page.bytes_total,
        "notes": None if page.notes is None else [storable(note) for note in page.notes],
    }


def _copy_shards(connection: BoundedConnection, lease: PlanLease, slices: list[Slice], first: int) -> None:
    if not slices:
        return
    with connection.cursor() as cursor, cursor.copy(_COPY_SHARDS) as copy:
        for shard_no, part in enumerate(slices, first):
            copy.write_row((lease.job.id, shard_no, *(getattr(part, name) for name in SLICE_FIELDS)))
