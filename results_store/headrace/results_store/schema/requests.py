"""Tables of single requests: predictions, durable requests and their relays, results of ordinary Celery tasks."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.contracts.states import State
from headrace.results_store.schema.base import TIME, metadata

#: One row a request, written once, never updated. Fixed-width columns come first: Postgres then pads nothing
#: between them and finds them without walking the row.
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.Uuid, nullable=False),
    sa.Column("submitted_at", TIME),
    sa.Column("started_at", TIME),
    sa.Column("finished_at", TIME, nullable=False),
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
    sa.Column("served_version", sa.Text),
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
    sa.Column("submitted_at", TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("due_at", TIME),
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
    sa.Column("until", TIME, nullable=False, server_default="-infinity"),
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
    sa.Column("expires_at", TIME),
    sa.PrimaryKeyConstraint("key", name="headrace_task_results_pkey"),
)

#: Writes: what has expired is removed.
sa.Index(
    "headrace_task_results_expires_at",
    task_results.c.expires_at,
    postgresql_where=task_results.c.expires_at.is_not(None),
)
