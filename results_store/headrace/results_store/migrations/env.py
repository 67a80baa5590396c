"""Alembic's environment: runs on the connection that `headrace.results_store.migration` holds, no file needed."""

from __future__ import annotations

from alembic import context

from headrace.results_store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
