"""Tables of the ledger of bulk jobs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.contracts.jobs import JobState
from headrace.results_store.schema.base import TIME, metadata


def _counter(name: str, kind: type[sa.types.TypeEngine[int]] | type[sa.types.TypeEngine[float]]) -> sa.Column[object]:
    """Return a column of a number that starts at 0."""
    return sa.Column(name, kind, nullable=False, server_default="0")


def _text(name: str) -> sa.Column[object]:
    """Return a column of a text that starts empty."""
    return sa.Column(name, sa.Text, nullable=False, server_default="")


#: Bulk jobs. key: of `ScoreSpec.key`; NULL in a job that was restarted, which is history. start_time_s: seconds for
#: each unit of weight that other jobs had been served when this one came. next_shard: how many shards there are.
#: rows_planned: NULL if some shard's rows are not counted. bytes_total: of all inputs; NULL until it is known. leader:
#: who plans or finalizes, until leader_until; leader_attempt: fences it. manifest_due: the job has ended otherwise
#: than by success, and its manifest doesn't say so yet. retry: how often bad rows were tried again. sample: what a dry
#: run found. replaces: earlier runs of the job, whose outputs are removed before it begins.
jobs = sa.Table(
    "headrace_jobs",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("created_at", TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("finished_at", TIME),
    sa.Column("leader_until", TIME),
    sa.Column("weight", sa.Double, nullable=False),
    _counter("start_time_s", sa.Double),
    sa.Column("max_rows_per_s", sa.Double, nullable=False),
    _counter("next_shard", sa.BigInteger),
    sa.Column("rows_planned", sa.BigInteger, server_default="0"),
    _counter("bytes_planned", sa.BigInteger),
    sa.Column("bytes_total", sa.BigInteger),
    _counter("leader_attempt", sa.Integer),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    _counter("retry", sa.SmallInteger),
    sa.Column("plan_done", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("manifest_due", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("dry_run", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("key", sa.LargeBinary),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("package_sha256", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("max_errors", sa.Text, nullable=False),
    _text("leader"),
    _text("error"),
    _text("manifest_etag"),
    sa.Column("spec", pg.JSONB, nullable=False),
    sa.Column("sample", pg.JSONB),
    sa.Column("replaces", pg.ARRAY(sa.Uuid), nullable=False, server_default="{}"),
    sa.Column("notes", pg.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("plan_cursor", sa.LargeBinary, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("id", name="headrace_jobs_pkey"),
    sa.UniqueConstraint("key", name="headrace_jobs_key"),
    sa.CheckConstraint(
        "state IN ({})".format(", ".join(f"'{state}'" for state in JobState)),
        name="headrace_jobs_state_check",
    ),
)

#: Claims, sweeps: jobs of a model for which there is something to do, which are few.
sa.Index(
    "headrace_jobs_live",
    jobs.c.model,
    postgresql_where=sa.text("state IN ('planning', 'running', 'paused', 'finalizing', 'cancelling') OR manifest_due"),
)

#: Input files of bulk jobs, as `InputFile` has them.
job_files = sa.Table(
    "headrace_job_files",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("file_no", sa.Integer, nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("job_id", "file_no", name="headrace_job_files_pkey"),
)

#: Shards of bulk jobs: their slice, their claim, what came of them. attempt: counts claims, and fences all that is
#: written about one. process: of the worker, by which its successor knows that it is gone. lease_until: of a
#: pending shard, before which it is not claimed. rows_seen: most rows that an attempt got through. retry: above 0,
#: the shard runs the bad rows that refer to it, and no others; rows_bad is then less than 0 by those that are bad
#: no more, so that sums over shards are right.
job_shards = sa.Table(
    "headrace_job_shards",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("shard_no", sa.BigInteger, nullable=False),
    sa.Column("claimed_at", TIME),
    sa.Column("lease_until", TIME),
    sa.Column("finished_at", TIME),
    sa.Column("byte_start", sa.BigInteger, nullable=False),
    sa.Column("byte_stop", sa.BigInteger, nullable=False),
    sa.Column("range_row", sa.BigInteger, nullable=False),
    sa.Column("range_line", sa.BigInteger, nullable=False),
    sa.Column("row_start", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("suspect_from", sa.BigInteger),
    sa.Column("suspect_to", sa.BigInteger),
    _counter("rows_seen", sa.BigInteger),
    _counter("rows_ok", sa.BigInteger),
    _counter("rows_bad", sa.BigInteger),
    _counter("rows_skipped", sa.BigInteger),
    _counter("part_bytes", sa.BigInteger),
    _counter("bytes_read", sa.BigInteger),
    sa.Column("file_no", sa.Integer, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("unit", sa.Integer, nullable=False),
    sa.Column("units", sa.Integer, nullable=False),
    _counter("attempt", sa.Integer),
    sa.Column("est_s", sa.REAL, nullable=False),
    _counter("wall_s", sa.REAL),
    _counter("read_s", sa.REAL),
    _counter("decode_s", sa.REAL),
    _counter("infer_s", sa.REAL),
    _counter("write_s", sa.REAL),
    _counter("state", sa.SmallInteger),
    _counter("deaths", sa.SmallInteger),
    _counter("retry", sa.SmallInteger),
    _text("worker"),
    _text("process"),
    _text("part"),
    _text("part_etag"),
    sa.PrimaryKeyConstraint("job_id", "shard_no", name="headrace_job_shards_pkey"),
)

#: Claims: the first shard of a job that nobody has.
sa.Index(
    "headrace_job_shards_pending",
    job_shards.c.job_id,
    job_shards.c.file_no,
    job_shards.c.row_start,
    postgresql_where=sa.text("state = 0"),
)

#: Claims, heartbeats: the shards that run, or whose worker is gone. Without lease_until, so that heartbeats are cheap.
sa.Index(
    "headrace_job_shards_running",
    job_shards.c.job_id,
    job_shards.c.shard_no,
    postgresql_where=sa.text("state = 1"),
)

#: Finalizing: parts in the order of the input.
sa.Index(
    "headrace_job_shards_done",
    job_shards.c.job_id,
    job_shards.c.file_no,
    job_shards.c.row_start,
    job_shards.c.shard_no,
    postgresql_where=sa.text("state = 2"),
)

#: Progress: the last shards that ended, which tell the pace.
sa.Index(
    "headrace_job_shards_finished_at",
    job_shards.c.job_id,
    job_shards.c.finished_at,
    postgresql_where=sa.text("state = 2"),
)

#: Rows of bulk jobs that are bad, as `BadRow` has them. shard_no: the shard that failed on the row, or that is to try
#: it again. retry: in which retry it failed; 0 is none.
job_errors = sa.Table(
    "headrace_job_errors",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("shard_no", sa.BigInteger, nullable=False),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("line", sa.BigInteger, nullable=False),
    sa.Column("file_no", sa.Integer, nullable=False),
    sa.Column("retry", sa.SmallInteger, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("input", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("job_id", "file_no", "row", name="headrace_job_errors_pkey"),
)

#: Retries: the bad rows that a shard is to try.
sa.Index("headrace_job_errors_shard", job_errors.c.job_id, job_errors.c.shard_no)

#: What each worker did for each job: sums over the shards that it completed, so that nobody has to sum them.
job_workers = sa.Table(
    "headrace_job_workers",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("served_s", sa.Double, nullable=False),
    sa.Column("read_s", sa.Double, nullable=False),
    sa.Column("decode_s", sa.Double, nullable=False),
    sa.Column("infer_s", sa.Double, nullable=False),
    sa.Column("write_s", sa.Double, nullable=False),
    sa.Column("shards", sa.BigInteger, nullable=False),
    sa.Column("rows_ok", sa.BigInteger, nullable=False),
    sa.Column("rows_bad", sa.BigInteger, nullable=False),
    sa.Column("rows_skipped", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("bytes_read", sa.BigInteger, nullable=False),
    sa.Column("part_bytes", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("job_id", "worker", name="headrace_job_workers_pkey"),
)
