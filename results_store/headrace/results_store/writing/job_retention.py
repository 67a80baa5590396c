"""Retention of bulk jobs: rows of a job that has not ended stay, and the ledger forgets jobs that ended long ago."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from headrace.contracts.jobs import ENDED

#: Rows that one DELETE removes, between two commits.
_CHUNK_ROWS: Final = 10_000

#: What has a job's id. The job itself goes first: a removal that breaks off leaves rows without a job, which the next
#: one finds, and no job without its rows.
_PARTS: Final = ("headrace_job_errors", "headrace_job_shards", "headrace_job_files", "headrace_job_workers")

_LIVE: Final = "SELECT id::text, (created_at AT TIME ZONE 'UTC')::date FROM headrace_jobs WHERE state <> ALL(%s)"

_REMOVE: Final = "DELETE FROM headrace_jobs WHERE state = ANY(%s) AND finished_at < %s"

_REMOVE_ORPHANS: Final = sql.SQL(
    "DELETE FROM {0} WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM {0} AS part WHERE NOT EXISTS (SELECT FROM headrace_jobs j WHERE j.id = part.job_id) LIMIT %s))"
)


class LiveJobs(msgspec.Struct, frozen=True):
    """Jobs that have not ended. days: on which they were created, which the ids of all their rows have."""

    ids: list[str]
    days: set[dt.date]


def live_jobs(connection: psycopg.Connection[tuple[Any, ...]]) -> LiveJobs:
    """Return the jobs whose rows must stay. Raises errors of psycopg."""
    found = connection.execute(_LIVE, (list(ENDED),)).fetchall()
    return LiveJobs(ids=[job_id for job_id, _ in found], days={day for _, day in found})


def prune_jobs(connection: psycopg.Connection[tuple[Any, ...]], cutoff: dt.datetime) -> int:
    """Remove from the ledger what ended before `cutoff`; return how many rows. connection: in autocommit mode.

    Raises errors of psycopg.
    """
    removed = connection.execute(_REMOVE, (list(ENDED), cutoff)).rowcount
    for name in _PARTS:
        statement = _REMOVE_ORPHANS.format(sql.Identifier(name))
        count = _CHUNK_ROWS
        while count == _CHUNK_ROWS:
            count = connection.execute(statement, (_CHUNK_ROWS,)).rowcount
            removed += count
    return removed
