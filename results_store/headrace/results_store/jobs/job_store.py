"""Jobs as clients see them: created once for each key, found by id, part of an id, or name."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.contracts.errors import HeadraceError, InvalidRequest, quoted
from headrace.contracts.ids import new_uuid
from headrace.contracts.jobs import STORE, JobOptions, parse_max_errors
from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.jobs.connection import LedgerConnection
from headrace.results_store.jobs.records import InputFile, JobRow, NewJob
from headrace.results_store.jobs.rows import FILE_FIELDS, JOB_COLUMNS, job_of, storable

#: Seconds for each unit of weight that the least served of the other jobs has had: where a job begins that joins them,
#: so that it neither waits until it has as much as they, nor goes before them for as long as that takes.
JOINING_TIME: Final = """
    coalesce((
        SELECT min(other.start_time_s + coalesce(served.s, 0) / other.weight)
        FROM headrace_jobs other
        CROSS JOIN LATERAL (SELECT sum(w.served_s) AS s FROM headrace_job_workers w WHERE w.job_id = other.id) served
        WHERE other.state IN ('planning', 'running') AND other.priority = %(priority)s AND other.id <> %(id)s
    ), 0)
"""

_CREATE: Final = f"""
    INSERT INTO headrace_jobs AS j (
        id, key, name, spec, model, version, package_sha256, state,
        priority, weight, max_errors, workers, max_rows_per_s, dry_run, replaces,
        start_time_s
    )
    VALUES (
        %(id)s, %(key)s, %(name)s, %(spec)s::jsonb, %(model)s, %(version)s, %(package_sha256)s, 'planning',
        %(priority)s, %(weight)s, %(max_errors)s, %(workers)s, %(max_rows_per_s)s, %(dry_run)s, %(replaces)s::uuid[],
        {JOINING_TIME}
    )
    ON CONFLICT (key) DO NOTHING
    RETURNING {JOB_COLUMNS}
"""  # noqa: S608

#: Jobs that write to one place are created one after the other.
_LOCK_OUTPUT: Final = "SELECT pg_advisory_xact_lock(hashtextextended('headrace output ' || %(output)s, 0))"

#: Another job that is not over and writes to the same place.
_BUSY: Final = """
    SELECT o.id, o.state FROM headrace_jobs o
    WHERE o.state IN ('planning', 'running', 'paused', 'finalizing', 'cancelling') AND NOT o.dry_run
      AND o.spec ->> 'output' = %(output)s AND o.key <> %(key)s
    LIMIT 1
"""

_BY_KEY: Final = f"SELECT {JOB_COLUMNS} FROM headrace_jobs j WHERE j.key = %(key)s"  # noqa: S608
_BY_ID: Final = f"SELECT {JOB_COLUMNS} FROM headrace_jobs j WHERE j.id = %(id)s"  # noqa: S608

_MATCHING: Final = f"""
    SELECT {JOB_COLUMNS} FROM headrace_jobs j
    WHERE j.id::text LIKE %(text)s || '%%' OR j.id::text LIKE '%%' || %(text)s
    ORDER BY j.id LIMIT 5
"""  # noqa: S608

_NAMED: Final = f"""
    SELECT {JOB_COLUMNS} FROM headrace_jobs j WHERE j.name = %(text)s ORDER BY j.created_at DESC LIMIT 1
"""  # noqa: S608

_NEWEST: Final = f"""
    SELECT {JOB_COLUMNS} FROM headrace_jobs j ORDER BY j.created_at DESC, j.id DESC LIMIT %(most)s
"""  # noqa: S608

_FILES: Final = f"""
    SELECT {", ".join(FILE_FIELDS)} FROM headrace_job_files
    WHERE job_id = %(id)s AND file_no > %(after)s ORDER BY file_no LIMIT %(most)s
"""  # noqa: S608

#: Part of an id, at its beginning or end: ids of jobs of one minute begin alike.
_PART_OF_ID: Final = re.compile(r"[0-9a-f-]{4,36}").fullmatch

#: Between the INSERT and the SELECT of `create`, another may give up the key, which is rare.
_TRIES: Final = 10


class UnknownJob(HeadraceError):
    """There is no such job; `headrace jobs list` shows all."""


class AmbiguousJob(HeadraceError):
    """Several jobs have an id like that; give more of it."""


class OutputBusy(HeadraceError):
    """Another job writes to the output."""


class JobStore:
    """Creates and finds jobs. For one thread."""

    def __init__(self, connection: LedgerConnection) -> None:
        """connection: may be shared with other parts of the ledger."""
        self._connection = connection

    def create(self, new: NewJob) -> tuple[JobRow, bool]:
        """Create a job unless there is one with the same key; return it, and whether it is new.

        Raises InvalidRequest when options make no sense, and OutputBusy when another job writes to its output.
        """
        values = _values(new)
        for _ in range(_TRIES):
            with self._connection.transaction() as connection:
                found = connection.execute(_BY_KEY, values).fetchone()
                if found is not None:
                    return job_of(found), False
                if new.spec.output != STORE and not new.options.dry_run:
                    connection.execute(_LOCK_OUTPUT, values)
                    _refuse_busy(connection, new, values)
                created = connection.execute(_CREATE, values).fetchone()
                if created is not None:
                    return job_of(created), True
        raise HeadraceError("the same job is restarted again and again by others; try again when they are done")

    def get(self, job_id: uuid.UUID) -> JobRow:
        """Return the job of an id. Raises UnknownJob."""
        found = self._connection.rows(_BY_ID, {"id": job_id})
        if not found:
            raise UnknownJob(f"there is no job {job_id}; `headrace jobs list` shows all")
        return job_of(found[0])

    def with_key(self, key: bytes) -> JobRow | None:
        """Return the job that has a key now, which `create` would return."""
        found = self._connection.rows(_BY_KEY, {"key": key})
        return job_of(found[0]) if found else None

    def find(self, text: str) -> JobRow:
        """Return the job of an id, of the beginning or end of one if that is unique, or the newest of a name.

        Raises UnknownJob, AmbiguousJob.
        """
        wanted = text.strip()
        named = self._connection.rows(_NAMED, {"text": storable(wanted)})
        if wanted and named:
            return job_of(named[0])
        part = wanted.lower()
        found = self._connection.rows(_MATCHING, {"text": part}) if _PART_OF_ID(part) else []
        if not found:
            raise UnknownJob(f"there is no job {quoted(wanted)}; `headrace jobs list` shows all")
        if len(found) > 1:
            ids = ", ".join(str(row[0]) for row in found)
            raise AmbiguousJob(f"several jobs have an id like {quoted(wanted)}: {ids}; give more of it")
        return job_of(found[0])

    def newest(self, most: int = 50) -> list[JobRow]:
        """Return the jobs that were created last, newest first."""
        return [job_of(row) for row in self._connection.rows(_NEWEST, {"most": most})]

    def files(self, job_id: uuid.UUID, after: int = -1, most: int = 1000) -> list[InputFile]:
        """Return the input files of a job whose number is greater than `after`, in order, up to a number of them."""
        rows = self._connection.rows(_FILES, {"id": job_id, "after": after, "most": most})
        return [InputFile(**dict(zip(FILE_FIELDS, row, strict=True))) for row in rows]


def _refuse_busy(connection: BoundedConnection, new: NewJob, values: Mapping[str, Any]) -> None:
    busy = connection.execute(_BUSY, values).fetchone()
    if busy is not None:
        raise OutputBusy(
            f"job {busy[0]}, which is {busy[1]}, writes to the output {new.spec.output} already; give another output, "
            "or wait for that job, or cancel it"
        )


def checked_options(options: JobOptions) -> Mapping[str, Any]:
    """Return options as values of a statement. Raises InvalidRequest when one makes no sense."""
    if not 0 <= options.priority <= 9:
        raise InvalidRequest(f"the priority of a job must be 0 to 9, not {options.priority}")
    if not 1e-6 <= options.weight <= 1e6:
        raise InvalidRequest(f"the weight of a job must be a number above 0, such as 0.5 or 2, not {options.weight}")
    if not 0 <= options.workers < 2**31:
        raise InvalidRequest(f"workers must be 0 (all) or more, not {options.workers}")
    if not 0 <= options.max_rows_per_s < float("inf"):
        raise InvalidRequest(f"max_rows_per_s must be 0 (no bound) or more, not {options.max_rows_per_s}")
    parse_max_errors(options.max_errors)
    return msgspec.structs.asdict(options)


def _values(new: NewJob) -> dict[str, Any]:
    return {
        "id": new_uuid(),
        # A dry run is no other job's, not even an earlier dry run's.
        "key": None if new.options.dry_run else new.spec.key(),
        "name": storable(new.name),
        "spec": msgspec.json.encode(new.spec).decode(),
        "output": new.spec.output,
        "model": new.spec.model,
        "version": new.version,
        "package_sha256": new.package_sha256,
        "replaces": list(new.replaces),
        **checked_options(new.options),
    }
