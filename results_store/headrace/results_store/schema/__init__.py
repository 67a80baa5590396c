"""The tables as SQLAlchemy Core metadata. Migrations create them; a test compares the two."""

from __future__ import annotations

from typing import Final

from headrace.results_store.schema.base import metadata
from headrace.results_store.schema.jobs import job_errors, job_files, job_shards, job_workers, jobs
from headrace.results_store.schema.requests import predictions, relays, requests, task_results

#: Every revision of the schema, oldest first; the last is the one this release reads and writes.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005")

#: Alembic's table of this schema; a name of its own, so that an application may keep its tables in the same database.
VERSION_TABLE: Final = "headrace_version"

__all__ = [
    "REVISIONS",
    "VERSION_TABLE",
    "job_errors",
    "job_files",
    "job_shards",
    "job_workers",
    "jobs",
    "metadata",
    "predictions",
    "relays",
    "requests",
    "task_results",
]
