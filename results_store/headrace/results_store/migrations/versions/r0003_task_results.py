"""The table of the results of ordinary Celery tasks."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

TABLE = """
CREATE TABLE headrace_task_results (
    key bytea NOT NULL,
    value bytea NOT NULL,
    expires_at timestamptz,
    CONSTRAINT headrace_task_results_pkey PRIMARY KEY (key)
)
"""

INDEX = """
CREATE INDEX headrace_task_results_expires_at ON headrace_task_results (expires_at) WHERE expires_at IS NOT NULL
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(INDEX)
