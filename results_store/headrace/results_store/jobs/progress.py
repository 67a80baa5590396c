"""How far jobs are."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from headrace.contracts.jobs import ENDED, JobState
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.estimate import Ended, remaining_s
from headrace.results_store.jobs.job_store import UnknownJob
from headrace.results_store.jobs.records import JobRow
from headrace.results_store.jobs.rows import JOB_COLUMNS, JOB_WIDTH, job_of

#: Shards that tell the pace: those that ended last.
RECENT: Final = 64

#: A job is never shown further than this before it has succeeded.
NEARLY: Final = 0.999

#: How much of its bytes an unfinished shard has behind it.
_BYTES_SEEN: Final = (
    "coalesce(sum(s.size_bytes * least(1, coalesce(s.rows_seen::float / nullif(greatest(s.rows, 0), 0), 0))), 0)"
)

#: One statement, so that all is as at one moment and no shard is counted twice or not at all. Sums are those that each
#: worker keeps; only shards that run or wait are looked at one by one, and those that were dropped when a job stopped.
_PROGRESS: Final = f"""
    SELECT {JOB_COLUMNS}, j.rows_planned, j.bytes_planned, j.bytes_total, j.next_shard,
           open.waiting, open.running, open.rows + dropped.rows, open.bytes + dropped.bytes,
           open.rows_per_s, open.est_s,
           busy.workers, ended.workers, recent.shards
    FROM headrace_jobs j
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE s.state = 0) AS waiting, count(*) FILTER (WHERE s.state = 1) AS running,
               coalesce(sum(s.rows_seen), 0)::bigint AS rows, {_BYTES_SEEN} AS bytes,
               coalesce(sum(s.rows_seen / nullif(s.wall_s, 0)) FILTER (WHERE s.state = 1), 0) AS rows_per_s,
               coalesce(sum(s.est_s), 0) AS est_s
        FROM headrace_job_shards s WHERE s.job_id = j.id AND (s.state = 0 OR s.state = 1)
    ) open
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(s.rows_seen), 0)::bigint AS rows, {_BYTES_SEEN} AS bytes
        FROM headrace_job_shards s
        WHERE j.state IN ('failed', 'cancelling', 'cancelled') AND s.job_id = j.id AND s.state = 3
    ) dropped
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(worker, shards), '{{}}') AS workers
        FROM (
            SELECT s.worker, count(*) AS shards FROM headrace_job_shards s
            WHERE s.job_id = j.id AND s.state = 1 AND s.lease_until >= now() GROUP BY s.worker
        ) each
    ) busy
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(to_jsonb(w)), '[]') AS workers FROM headrace_job_workers w WHERE w.job_id = j.id
    ) ended
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(jsonb_build_array(s.size_bytes, s.est_s, s.rows, s.wall_s)), '[]') AS shards
        FROM (
            SELECT size_bytes, est_s, rows, wall_s FROM headrace_job_shards
            WHERE job_id = j.id AND state = 2 ORDER BY finished_at DESC LIMIT {RECENT}
        ) s
    ) recent
"""  # noqa: S608

_OF = f"{_PROGRESS} WHERE j.id = %(id)s"
_NEWEST = f"{_PROGRESS} ORDER BY j.created_at DESC, j.id DESC LIMIT %(most)s"


class WorkerSeconds(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one worker for a job, summed over the shards that it completed. served_s: how long it was busy.

    running: its shards that run, or that it has claimed ahead.
    """

    worker: str
    running: int = 0
    shards: int = 0
    served_s: float = 0.0
    read_s: float = 0.0
    decode_s: float = 0.0
    infer_s: float = 0.0
    write_s: float = 0.0
    rows_ok: int = 0
    rows_bad: int = 0
    rows_skipped: int = 0
    size_bytes: int = 0
    bytes_read: int = 0
    part_bytes: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is.

    rows_ok, rows_bad, rows_skipped: of shards that have ended. rows_done: these, and rows that running shards have got
    through; it never goes down, also when a worker dies. rows_total: None while it is not known. share: from 0 to 1, by
    bytes; 1 only when the job has succeeded, None until it is known how much there is. remaining_s: least and most
    seconds that it will still take; None if nothing tells. rows_per_s: at present; of a job that has ended, over all.
    """

    job: JobRow
    rows_total: int | None
    rows_done: int
    rows_ok: int
    rows_bad: int
    rows_skipped: int
    rows_per_s: float
    bytes_planned: int
    bytes_total: int | None
    bytes_done: int
    bytes_read: int
    part_bytes: int
    shards_waiting: int
    shards_running: int
    shards_done: int
    shards_dropped: int
    share: float | None
    remaining_s: tuple[float, float] | None
    workers: list[WorkerSeconds]


class ProgressStore:
    """Reads how far jobs are. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def of(self, job_id: uuid.UUID) -> Progress:
        """Return how far a job is. Raises UnknownJob."""
        found = self._connection.rows(_OF, {"id": job_id})
        if not found:
            raise UnknownJob(f"there is no job {job_id}; `headrace jobs list` shows all")
        return _progress_of(found[0])

    def newest(self, most: int = 50) -> list[Progress]:
        """Return how far the jobs are that were created last, newest first."""
        return [_progress_of(row) for row in self._connection.rows(_NEWEST, {"most": most})]


class _Open(msgspec.Struct):
    """Shards that have not ended."""

    waiting: int
    running: int
    rows: int
    bytes: float
    rows_per_s: float
    est_s: float


def _progress_of(row: tuple[Any, ...]) -> Progress:
    job = job_of(row[:JOB_WIDTH])
    rows_planned, bytes_planned, bytes_total, shards, *figures, busy, ended, recent = row[JOB_WIDTH:]
    left = _Open(*figures)
    workers = _workers(ended, busy)
    done = [worker.rows_ok + worker.rows_bad + worker.rows_skipped for worker in workers]
    rows_done = sum(done) + left.rows
    shards_done = sum(worker.shards for worker in workers)
    bytes_total = bytes_planned if job.plan_done else bytes_total
    bytes_done = sum(worker.size_bytes for worker in workers) + round(left.bytes)
    return Progress(
        job=job,
        rows_total=_rows_total(job, rows_planned, rows_done),
        rows_done=rows_done,
        rows_ok=sum(worker.rows_ok for worker in workers),
        rows_bad=sum(worker.rows_bad for worker in workers),
        rows_skipped=sum(worker.rows_skipped for worker in workers),
        rows_per_s=_rows_per_s(job, rows_done, recent, len(busy)) or left.rows_per_s,
        bytes_planned=bytes_planned,
        bytes_total=bytes_total,
        bytes_done=bytes_done,
        bytes_read=sum(worker.bytes_read for worker in workers),
        part_bytes=sum(worker.part_bytes for worker in workers),
        shards_waiting=left.waiting,
        shards_running=left.running,
        shards_done=shards_done,
        shards_dropped=shards - shards_done - left.waiting - left.running,
        share=_share(job, bytes_done, bytes_total),
        remaining_s=_remaining_s(job, recent, _work_left(left, bytes_done, bytes_total), len(busy)),
        workers=workers,
    )


def _workers(ended: list[dict[str, Any]], busy: dict[str, int]) -> list[WorkerSeconds]:
    known = {each["worker"]: each for each in ended}
    return [
        msgspec.convert({**known.get(name, {}), "worker": name, "running": busy.get(name, 0)}, WorkerSeconds)
        for name in sorted(known.keys() | busy.keys())
    ]


def _rows_total(job: JobRow, rows_planned: int | None, rows_done: int) -> int | None:
    if job.state is JobState.SUCCEEDED:
        return rows_done
    return rows_planned if job.plan_done else None


def _rows_per_s(job: JobRow, rows_done: int, recent: list[list[float]], workers: int) -> float:
    if job.finished_at is not None:
        return rows_done / max((job.finished_at - job.created_at).total_seconds(), 1e-3)
    seconds = sum(shard[3] for shard in recent)
    return workers * sum(max(0.0, shard[2]) for shard in recent) / seconds if seconds else 0.0


def _share(job: JobRow, bytes_done: int, bytes_total: int | None) -> float | None:
    if job.state is JobState.SUCCEEDED:
        return 1.0
    if bytes_total is None:
        return None
    return min(NEARLY, bytes_done / bytes_total) if bytes_total else 0.0


def _work_left(left: _Open, bytes_done: int, bytes_total: int | None) -> tuple[int, float] | None:
    """Return at which place `recent` has the unit of work, and how much is left; None if that is not known."""
    if bytes_total is None:
        return None
    # What has no size, such as bad rows that are retried, is measured by how long it was expected to take.
    return (0, bytes_total - bytes_done) if bytes_total > bytes_done else (1, left.est_s)


def _remaining_s(
    job: JobRow, recent: list[list[float]], work: tuple[int, float] | None, workers: int
) -> tuple[float, float] | None:
    if job.state in ENDED or work is None:
        return None
    at, amount = work
    return remaining_s(amount, [Ended(shard[at], shard[3]) for shard in recent], workers)
