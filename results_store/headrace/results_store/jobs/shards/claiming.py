"""Claims: the next shard for a worker, in a fair order."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import Claim, Claimant, InputFile
from headrace.results_store.jobs.rows import (
    FILE_FIELDS,
    JOB_COLUMNS,
    SLICE_COLUMNS,
    job_of,
    slice_of,
)

#: Jobs with something to claim. Those of the highest priority come first; then those that have been served least for
#: their weight, where a shard that runs counts as long as it is expected to take, or has taken; then the oldest.
_RANK: Final = """
    SELECT j.id, j.workers
    FROM headrace_jobs j
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(w.served_s), 0) AS served_s FROM headrace_job_workers w WHERE w.job_id = j.id
    ) ended
    CROSS JOIN LATERAL (
        SELECT count(*) AS all_shards,
               count(*) FILTER (WHERE s.lease_until >= now()) AS shards,
               coalesce(sum(greatest(s.est_s, extract(epoch FROM now() - s.claimed_at)))
                   FILTER (WHERE s.lease_until >= now()), 0) AS served_s
        FROM headrace_job_shards s WHERE s.job_id = j.id AND s.state = 1
    ) running
    CROSS JOIN LATERAL (
        SELECT count(*) AS shards
        FROM (
            SELECT FROM headrace_job_shards s
            WHERE s.job_id = j.id AND s.state = 0 AND (s.lease_until IS NULL OR s.lease_until < now())
            LIMIT %(enough)s
        ) few
    ) pending
    WHERE j.state IN ('planning', 'running')
      AND j.model = ANY(%(models)s)
      AND (%(packages)s::text[] IS NULL OR j.package_sha256 = ANY(%(packages)s::text[]))
      AND (j.workers = 0 OR running.shards < j.workers)
      AND CASE WHEN %(ahead)s::jsonb IS NOT NULL
               THEN pending.shards >= greatest(1, least(coalesce((%(ahead)s::jsonb ->> j.model)::int, 1), %(enough)s))
               ELSE pending.shards > 0 OR running.all_shards > running.shards END
    ORDER BY j.priority DESC, j.start_time_s + (ended.served_s + running.served_s) / j.weight, j.created_at
    LIMIT 100
"""

#: A shard whose worker is gone goes first: its rows come first in the input, and it may hold a row that kills workers.
_TAKE: Final = f"""
    WITH lapsed AS (
        SELECT shard_no FROM headrace_job_shards
        WHERE job_id = %(job)s AND state = 1 AND lease_until < now()
        ORDER BY file_no, row_start LIMIT 1 FOR UPDATE SKIP LOCKED
    ), pending AS (
        SELECT shard_no FROM headrace_job_shards
        WHERE NOT EXISTS (SELECT FROM lapsed)
          AND job_id = %(job)s AND state = 0 AND (lease_until IS NULL OR lease_until < now())
        ORDER BY file_no, row_start LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE headrace_job_shards s
    SET state = 1, attempt = s.attempt + 1, deaths = s.deaths + CASE WHEN s.state = 1 THEN 1 ELSE 0 END,
        worker = %(worker)s, process = %(process)s, claimed_at = now(),
        lease_until = now() + %(lease_s)s * interval '1 second'
    FROM (SELECT shard_no FROM lapsed UNION ALL SELECT shard_no FROM pending) AS next
    WHERE s.job_id = %(job)s AND s.shard_no = next.shard_no
      AND EXISTS (SELECT FROM headrace_jobs j WHERE j.id = %(job)s AND j.state IN ('planning', 'running'))
    RETURNING s.shard_no, s.attempt, s.deaths, s.suspect_from, s.suspect_to, s.retry, {SLICE_COLUMNS}
"""  # noqa: S608

#: Jobs with a bound on their shards at a time are claimed from by one worker after the other.
_LOCK_BOUNDED: Final = "SELECT workers FROM headrace_jobs WHERE id = %(job)s FOR NO KEY UPDATE"

_COUNT_RUNNING: Final = """
    SELECT count(*) FROM headrace_job_shards WHERE job_id = %(job)s AND state = 1 AND lease_until >= now()
"""

_JOB: Final = f"SELECT {JOB_COLUMNS} FROM headrace_jobs j WHERE j.id = %(job)s"  # noqa: S608

_FILES: Final = f"""
    SELECT {", ".join(FILE_FIELDS)} FROM headrace_job_files
    WHERE job_id = %(job)s AND file_no >= %(first)s AND file_no < %(first)s + %(files)s ORDER BY file_no
"""  # noqa: S608

_ONLY: Final = """
    SELECT file_no, row FROM headrace_job_errors
    WHERE job_id = %(job)s AND shard_no = %(shard)s AND retry < %(retry)s ORDER BY file_no, row
"""

#: Pending shards are counted up to this when a shard is claimed ahead; more workers than that all find enough.
_ENOUGH: Final = 256


class Claims:
    """Claims shards. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def claim(self, claimant: Claimant, lease_s: float, ahead: Mapping[str, int] | None = None) -> Claim | None:
        """Claim the next shard; None when there is nothing for this worker.

        lease_s: the shard is somebody else's when there is no heartbeat for so long. ahead: given by a worker that has
        one to run already: the number of workers, by model. It gets none when the shards that wait are fewer than the
        workers, who would then wait for it.
        """
        ranked = self._connection.rows(
            _RANK,
            {
                "models": list(claimant.models),
                "packages": None if claimant.packages is None else list(claimant.packages),
                "ahead": None if ahead is None else msgspec.json.encode(ahead).decode(),
                "enough": 1 if ahead is None else _ENOUGH,
            },
        )
        for job_id, workers in ranked:
            values = {"job": job_id, "worker": claimant.worker, "process": claimant.process, "lease_s": lease_s}
            taken = self._take_bounded(values) if workers else self._connection.rows(_TAKE, values)
            if taken:
                return self._described(job_id, taken[0])
        return None

    def _take_bounded(self, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._connection.transaction() as connection:
            bound = connection.execute(_LOCK_BOUNDED, values).fetchone()
            running = connection.execute(_COUNT_RUNNING, values).fetchone()
            if bound is None or running is None or 0 < bound[0] <= running[0]:
                return []
            return connection.execute(_TAKE, values).fetchall()

    def _described(self, job_id: uuid.UUID, taken: tuple[Any, ...]) -> Claim | None:
        """Return the claim with its job and files; None when the job was removed at this moment."""
        shard_no, attempt, deaths, suspect_from, suspect_to, retry, *fields = taken
        part = slice_of(fields)
        values = {"job": job_id, "shard": shard_no, "first": part.file_no, "files": part.files, "retry": retry}
        jobs = self._connection.rows(_JOB, values)
        if not jobs:
            return None
        return Claim(
            job=job_of(jobs[0]),
            shard_no=shard_no,
            attempt=attempt,
            slice=part,
            files=[
                InputFile(**dict(zip(FILE_FIELDS, row, strict=True))) for row in self._connection.rows(_FILES, values)
            ],
            deaths=deaths,
            suspect=None if suspect_from is None else (suspect_from, suspect_to),
            retry=retry,
            only=self._only(values),
        )

    def _only(self, values: dict[str, Any]) -> list[tuple[int, int]]:
        """Return the bad rows that a shard tries again; those are listed under the shard that last failed on them."""
        return [(file_no, row) for file_no, row in self._connection.rows(_ONLY, values)] if values["retry"] else []
