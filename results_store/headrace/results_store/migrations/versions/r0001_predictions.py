"""The table `predictions`, ranged by the time in its UUIDv7 key, and its partitions without a day."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLE = """
CREATE TABLE predictions (
    id uuid NOT NULL,
    submitted_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    row_index bigint,
    batch_id uuid,
    batch_rows integer,
    attempts integer NOT NULL,
    cached boolean NOT NULL,
    state text NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    outputs jsonb,
    datatypes text NOT NULL DEFAULT '',
    blob bytea,
    error jsonb,
    worker text,
    job_id text,
    foreign_id text,
    CONSTRAINT predictions_pkey PRIMARY KEY (id),
    CONSTRAINT predictions_state_check CHECK (state IN ('succeeded', 'failed', 'expired', 'cancelled'))
) PARTITION BY RANGE (id)
"""

INDEXES = (
    "CREATE INDEX predictions_model_finished_at ON predictions (model, finished_at)",
    "CREATE INDEX predictions_job ON predictions (job_id, row_index) WHERE job_id IS NOT NULL",
    "CREATE INDEX predictions_unsuccessful ON predictions (state, finished_at) WHERE state <> 'succeeded'",
)

# UUIDv7 of the year 2109 and later: in practice the random UUIDs of foreign clients, 98 % of which fall in here.
# They are kept out of the default partition because Postgres reads that one whole for every new day.
FOREIGN = """
CREATE TABLE predictions_foreign PARTITION OF predictions
FOR VALUES FROM ('04000000-0000-0000-0000-000000000000') TO (MAXVALUE)
"""

DEFAULT = "CREATE TABLE predictions_default PARTITION OF predictions DEFAULT"


def upgrade() -> None:
    for statement in (TABLE, *INDEXES, FOREIGN, DEFAULT):
        op.execute(statement)
