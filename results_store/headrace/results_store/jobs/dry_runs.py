"""Outcomes of dry runs, kept with their job for whoever asked."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from headrace.contracts.jobs import DryRun
from headrace.results_store.jobs.connection import LedgerConnection

#: The sample is all that a dry run is to do, so it has succeeded.
_KEEP: Final = """
    UPDATE headrace_jobs
    SET sample = %(sample)s::jsonb, state = 'succeeded', finished_at = now(), plan_done = true, leader_until = NULL
    WHERE id = %(id)s AND dry_run AND state IN ('planning', 'running')
"""
_OF: Final = "SELECT sample::text FROM headrace_jobs WHERE id = %(id)s AND sample IS NOT NULL"


class DryRuns:
    """Keeps the outcome of dry runs. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def keep(self, job_id: uuid.UUID, found: DryRun) -> bool:
        """Keep what a dry run found, and end it; return False if it was cancelled meanwhile, or is none."""
        # jsonb can't hold NUL in text, which a preview of raw data may.
        sample = msgspec.json.encode(found).decode().replace("\\u0000", "\\ufffd")
        return self._connection.change(_KEEP, {"id": job_id, "sample": sample}) > 0

    def of(self, job_id: uuid.UUID) -> DryRun | None:
        """Return what a dry run found; None while it runs, and of other jobs."""
        found = self._connection.rows(_OF, {"id": job_id})
        return msgspec.json.decode(found[0][0], type=DryRun) if found else None
