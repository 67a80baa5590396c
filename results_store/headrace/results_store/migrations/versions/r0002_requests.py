"""The tables of durable requests: requests to send to the broker, and the relay that sends them."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

# One row for all requests of one call, since a row of its own for each costs four times as much. Keys and messages
# don't compress well, and are read as a whole.
REQUESTS = """
CREATE TABLE headrace_requests (
    id uuid NOT NULL,
    submitted_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz,
    sent integer NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    prefix text NOT NULL,
    queue text NOT NULL,
    keys uuid[] NOT NULL,
    names text[],
    template bytea,
    messages bytea[] NOT NULL,
    CONSTRAINT headrace_requests_pkey PRIMARY KEY (id)
)
"""

RELAYS = """
CREATE TABLE headrace_relays (
    prefix text NOT NULL,
    database_id uuid NOT NULL DEFAULT gen_random_uuid(),
    until timestamptz NOT NULL DEFAULT '-infinity',
    holder text NOT NULL DEFAULT '',
    server text NOT NULL DEFAULT '',
    CONSTRAINT headrace_relays_pkey PRIMARY KEY (prefix)
)
"""

STATEMENTS = (
    REQUESTS,
    "ALTER TABLE headrace_requests ALTER keys SET STORAGE EXTERNAL, ALTER messages SET STORAGE EXTERNAL",
    "CREATE INDEX headrace_requests_due ON headrace_requests (due_at) WHERE due_at IS NOT NULL",
    RELAYS,
    "INSERT INTO headrace_relays (prefix) VALUES ('')",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
