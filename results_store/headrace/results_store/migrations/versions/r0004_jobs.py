"""The ledger of bulk jobs: jobs, their input files, shards, bad rows, and what each worker did."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

# No foreign keys: each shard that is inserted would lock its job, and each bad row would be looked up by itself.
JOBS = """
CREATE TABLE headrace_jobs (
    id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    leader_until timestamptz,
    weight double precision NOT NULL,
    start_time_s double precision NOT NULL DEFAULT 0,
    max_rows_per_s double precision NOT NULL,
    next_shard bigint NOT NULL DEFAULT 0,
    rows_planned bigint DEFAULT 0,
    bytes_planned bigint NOT NULL DEFAULT 0,
    bytes_total bigint,
    leader_attempt integer NOT NULL DEFAULT 0,
    workers integer NOT NULL,
    priority smallint NOT NULL,
    retry smallint NOT NULL DEFAULT 0,
    plan_done boolean NOT NULL DEFAULT false,
    manifest_due boolean NOT NULL DEFAULT false,
    dry_run boolean NOT NULL DEFAULT false,
    key bytea,
    state text NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    package_sha256 text NOT NULL,
    name text NOT NULL,
    max_errors text NOT NULL,
    leader text NOT NULL DEFAULT '',
    error text NOT NULL DEFAULT '',
    manifest_etag text NOT NULL DEFAULT '',
    spec jsonb NOT NULL,
    sample jsonb,
    replaces uuid[] NOT NULL DEFAULT '{}',
    notes text[] NOT NULL DEFAULT '{}',
    plan_cursor bytea NOT NULL DEFAULT '',
    CONSTRAINT headrace_jobs_pkey PRIMARY KEY (id),
    CONSTRAINT headrace_jobs_key UNIQUE (key),
    CONSTRAINT headrace_jobs_state_check CHECK (state IN (
        'planning', 'running', 'paused', 'finalizing', 'succeeded', 'failed', 'cancelling', 'cancelled'
    ))
)
"""

FILES = """
CREATE TABLE headrace_job_files (
    job_id uuid NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    rows bigint NOT NULL,
    file_no integer NOT NULL,
    uri text NOT NULL,
    format text NOT NULL,
    etag text NOT NULL,
    CONSTRAINT headrace_job_files_pkey PRIMARY KEY (job_id, file_no)
)
"""

# The room that fillfactor leaves in each page takes the next versions of its rows: a heartbeat touches no index.
SHARDS = """
CREATE TABLE headrace_job_shards (
    job_id uuid NOT NULL,
    shard_no bigint NOT NULL,
    claimed_at timestamptz,
    lease_until timestamptz,
    finished_at timestamptz,
    byte_start bigint NOT NULL,
    byte_stop bigint NOT NULL,
    range_row bigint NOT NULL,
    range_line bigint NOT NULL,
    row_start bigint NOT NULL,
    rows bigint NOT NULL,
    size_bytes bigint NOT NULL,
    suspect_from bigint,
    suspect_to bigint,
    rows_seen bigint NOT NULL DEFAULT 0,
    rows_ok bigint NOT NULL DEFAULT 0,
    rows_bad bigint NOT NULL DEFAULT 0,
    rows_skipped bigint NOT NULL DEFAULT 0,
    part_bytes bigint NOT NULL DEFAULT 0,
    bytes_read bigint NOT NULL DEFAULT 0,
    file_no integer NOT NULL,
    files integer NOT NULL,
    unit integer NOT NULL,
    units integer NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    est_s real NOT NULL,
    wall_s real NOT NULL DEFAULT 0,
    read_s real NOT NULL DEFAULT 0,
    decode_s real NOT NULL DEFAULT 0,
    infer_s real NOT NULL DEFAULT 0,
    write_s real NOT NULL DEFAULT 0,
    state smallint NOT NULL DEFAULT 0,
    deaths smallint NOT NULL DEFAULT 0,
    retry smallint NOT NULL DEFAULT 0,
    worker text NOT NULL DEFAULT '',
    process text NOT NULL DEFAULT '',
    part text NOT NULL DEFAULT '',
    part_etag text NOT NULL DEFAULT '',
    CONSTRAINT headrace_job_shards_pkey PRIMARY KEY (job_id, shard_no)
) WITH (fillfactor = 70)
"""

ERRORS = """
CREATE TABLE headrace_job_errors (
    job_id uuid NOT NULL,
    shard_no bigint NOT NULL,
    row bigint NOT NULL,
    line bigint NOT NULL,
    file_no integer NOT NULL,
    retry smallint NOT NULL,
    stage text NOT NULL,
    type text NOT NULL,
    message text NOT NULL,
    input bytea NOT NULL,
    CONSTRAINT headrace_job_errors_pkey PRIMARY KEY (job_id, file_no, row)
)
"""

# Each worker counts in a row of its own; one counter for all would have them wait for each other at every shard.
WORKERS = """
CREATE TABLE headrace_job_workers (
    job_id uuid NOT NULL,
    served_s double precision NOT NULL,
    read_s double precision NOT NULL,
    decode_s double precision NOT NULL,
    infer_s double precision NOT NULL,
    write_s double precision NOT NULL,
    shards bigint NOT NULL,
    rows_ok bigint NOT NULL,
    rows_bad bigint NOT NULL,
    rows_skipped bigint NOT NULL,
    size_bytes bigint NOT NULL,
    bytes_read bigint NOT NULL,
    part_bytes bigint NOT NULL,
    worker text NOT NULL,
    CONSTRAINT headrace_job_workers_pkey PRIMARY KEY (job_id, worker)
) WITH (fillfactor = 70)
"""

INDEXES = (
    "CREATE INDEX headrace_jobs_live ON headrace_jobs (model)"
    " WHERE state IN ('planning', 'running', 'paused', 'finalizing', 'cancelling') OR manifest_due",
    "CREATE INDEX headrace_job_shards_pending ON headrace_job_shards (job_id, file_no, row_start) WHERE state = 0",
    "CREATE INDEX headrace_job_shards_running ON headrace_job_shards (job_id, shard_no) WHERE state = 1",
    "CREATE INDEX headrace_job_shards_done ON headrace_job_shards (job_id, file_no, row_start, shard_no)"
    " WHERE state = 2",
    "CREATE INDEX headrace_job_shards_finished_at ON headrace_job_shards (job_id, finished_at) WHERE state = 2",
    "CREATE INDEX headrace_job_errors_shard ON headrace_job_errors (job_id, shard_no)",
)


def upgrade() -> None:
    for statement in (JOBS, FILES, SHARDS, ERRORS, WORKERS, *INDEXES):
        op.execute(statement)
