"""The tables as SQLAlchemy Core metadata. Migrations create it; a test compares the two."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.contracts.jobs import JobState
from headrace.contracts.states import State

#: Every revision of the schema, oldest first; the last is the one this release reads and writes.
REVISIONS: Final = ("0001", "0002", "0003", "0004")

#: Alembic's table of this schema; a name of its own, so that an application may keep its tables in the same database.
VERSION_TABLE: Final = "headrace_version"

metadata = sa.MetaData()


class _Utc(sa.TypeDecorator[dt.datetime]):
    """A time that is read as UTC, whatever the zone of the session is."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(dt.UTC)


_TIME: Final = _Utc()

#: One row a request, written once, never updated. Fixed-width columns come first: Postgres then pads nothing
#: between them and finds them without walking the row.
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("submitted_at", _TIME),
    sa.Column("started_at", _TIME),
    sa.Column("finished_at", _TIME, nullable=False),
    sa.Column("row_index", sa.BigInteger),
    sa.Column("batch_id", sa.Uuid),
    sa.Column("batch_rows", sa.Integer),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("outputs", pg.JSONB),
    sa.Column("datatypes", sa.Text, nullable=False, server_default=""),
    sa.Column("blob", sa.LargeBinary),
    sa.Column("error", pg.JSONB),
    sa.Column("worker", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("foreign_id", sa.Text),
    sa.PrimaryKeyConstraint("id", name="predictions_pkey"),
    sa.CheckConstraint(
        "state IN ({})".format(", ".join(f"'{state}'" for state in State)),
        name="predictions_state_check",
    ),
    postgresql_partition_by="RANGE (id)",
)

#: Reads: the newest predictions of a model, or of a model between two times.
sa.Index("predictions_model_finished_at", predictions.c.model, predictions.c.finished_at)

#: Reads: the rows of a bulk job, in order. Costs nothing for requests outside of jobs.
sa.Index(
    "predictions_job",
    predictions.c.job_id,
    predictions.c.row_index,
    postgresql_where=predictions.c.job_id.is_not(None),
)

#: Reads: what went wrong lately. Costs nothing for successes.
sa.Index(
    "predictions_unsuccessful",
    predictions.c.state,
    predictions.c.finished_at,
    postgresql_where=sa.text("state <> 'succeeded'"),
)

#: Durable requests from before they are sent until all of a row have ended; the prefix is of the keys in Redis.
#: due_at: when a relay sends what is not sent yet; NULL when all is. sent: how many, from the first. keys: of
#: `predictions`. names: the ids as they were submitted, unless all are the keys. messages: as they go to the queue, or
#: only their bodies, with a template, see `contracts.compact`.
requests = sa.Table(
    "headrace_requests",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("submitted_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("due_at", _TIME),
    sa.Column("sent", sa.Integer, nullable=False, server_default="0"),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("keys", pg.ARRAY(sa.Uuid), nullable=False),
    sa.Column("names", pg.ARRAY(sa.Text)),
    sa.Column("template", sa.LargeBinary),
    sa.Column("messages", pg.ARRAY(sa.LargeBinary), nullable=False),
    sa.PrimaryKeyConstraint("id", name="headrace_requests_pkey"),
)

#: What is to be sent, which is little at any time.
sa.Index("headrace_requests_due", requests.c.due_at, postgresql_where=requests.c.due_at.is_not(None))

#: Who sends for the clients of one key prefix, and until when; a relay that is gone is followed by another. server: the
#: identity of the broker that is known to hold what was sent. database_id: tells this database from others.
relays = sa.Table(
    "headrace_relays",
    metadata,
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("database_id", sa.Uuid, nullable=False, server_default=sa.func.gen_random_uuid()),
    sa.Column("until", _TIME, nullable=False, server_default="-infinity"),
    sa.Column("holder", sa.Text, nullable=False, server_default=""),
    sa.Column("server", sa.Text, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("prefix", name="headrace_relays_pkey"),
)

#: Results, groups and chords of ordinary Celery tasks. key: as Celery's key-value backends make it.
task_results = sa.Table(
    "headrace_task_results",
    metadata,
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", _TIME),
    sa.PrimaryKeyConstraint("key", name="headrace_task_results_pkey"),
)

#: Writes: what has expired is removed.
sa.Index(
    "headrace_task_results_expires_at",
    task_results.c.expires_at,
    postgresql_where=task_results.c.expires_at.is_not(None),
)


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
    sa.Column("created_at", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("finished_at", _TIME),
    sa.Column("leader_until", _TIME),
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
#: written about one. lease_until: of a pending shard, before which it is not claimed. rows_seen: most rows that an
#: attempt got through. retry: above 0, the shard runs the bad rows that refer to it, and no others; rows_bad is then
#: less than 0 by those that are bad no more, so that sums over shards are right.
job_shards = sa.Table(
    "headrace_job_shards",
    metadata,
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("shard_no", sa.BigInteger, nullable=False),
    sa.Column("claimed_at", _TIME),
    sa.Column("lease_until", _TIME),
    sa.Column("finished_at", _TIME),
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
