"""Rows of the ledger's tables as records, and records as values of statements."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.records import BadRow, InputFile, JobRow, Slice

#: What `job_of` reads, of a table that is called `j` in the statement.
JOB_COLUMNS: Final = (
    "j.id, j.name, j.spec, j.priority, j.weight, j.max_errors, j.workers, j.max_rows_per_s, j.version,"
    " j.package_sha256, j.state, j.plan_done, j.created_at, j.finished_at, j.error, j.retry, j.manifest_etag,"
    " j.dry_run, j.replaces, j.notes"
)
JOB_WIDTH: Final = JOB_COLUMNS.count(",") + 1

SLICE_FIELDS: Final = Slice.__struct_fields__
FILE_FIELDS: Final = InputFile.__struct_fields__

#: What `Slice(*row)` would take, of a table that is called `s` in the statement.
SLICE_COLUMNS: Final = ", ".join(f"s.{name}" for name in SLICE_FIELDS)

#: Longest input that is kept of a bad row.
MAX_INPUT_BYTES: Final = 65_536

_COPY_ERRORS: Final = (
    "COPY headrace_job_errors (job_id, shard_no, file_no, row, line, retry, stage, type, message, input) FROM STDIN"
)

#: Characters that Postgres text can't hold: NUL, and what `errors="replace"` finds.
_NUL: Final = "\x00"


def job_of(row: Sequence[Any]) -> JobRow:
    """Return the job of a row of `JOB_COLUMNS`."""
    identity, name, spec, priority, weight, max_errors, workers, max_rows_per_s, version, sha256, state, *rest = row
    plan_done, created_at, finished_at, error, retry, manifest_etag, dry_run, replaces, notes = rest
    return JobRow(
        id=identity,
        name=name,
        spec=msgspec.convert(spec, ScoreSpec),
        options=JobOptions(
            priority=priority,
            weight=weight,
            max_errors=max_errors,
            workers=workers,
            max_rows_per_s=max_rows_per_s,
            dry_run=dry_run,
        ),
        version=version,
        package_sha256=sha256,
        state=JobState(state),
        plan_done=plan_done,
        created_at=created_at.astimezone(dt.UTC),
        finished_at=None if finished_at is None else finished_at.astimezone(dt.UTC),
        error=error,
        retry=retry,
        manifest_etag=manifest_etag,
        replaces=tuple(replaces),
        notes=tuple(notes),
    )


def slice_of(row: Iterable[Any]) -> Slice:
    """Return the slice of a row of `SLICE_COLUMNS`."""
    return Slice(**dict(zip(SLICE_FIELDS, row, strict=True)))


def columns_of(records: Sequence[msgspec.Struct], fields: Sequence[str]) -> dict[str, list[Any]]:
    """Return fields of records as lists, one a column, as `unnest` takes them."""
    return {name: [getattr(record, name) for record in records] for name in fields}


def copy_bad_rows(connection: BoundedConnection, key: tuple[object, int], bad: Sequence[BadRow], retry: int) -> None:
    """Write bad rows. key: the id of the job, and the number of the shard. Raises errors of psycopg."""
    if not bad:
        return
    with connection.cursor() as cursor, cursor.copy(_COPY_ERRORS) as copy:
        for row in bad:
            texts = (storable(text) for text in (row.stage, row.type, row.message))
            copy.write_row((*key, row.file_no, row.row, row.line, retry, *texts, row.input[:MAX_INPUT_BYTES]))


def storable(text: str) -> str:
    """Return a text without what Postgres can't hold."""
    return text.replace(_NUL, "\ufffd").encode("utf-8", "replace").decode()
