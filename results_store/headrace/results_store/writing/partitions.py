"""Daily partitions of `predictions`, ranged by the time in the UUIDv7 key; rows with other keys are pruned by time."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql

from headrace.contracts.errors import ConfigurationError
from headrace.results_store.database.address import connect
from headrace.results_store.database.bounded import LONG_WORK_S
from headrace.results_store.database.errors import driver_errors_translated
from headrace.results_store.writing.job_retention import live_jobs, prune_jobs

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

PARENT: Final = "predictions"

#: Rows of random ids (foreign clients), and rows whose day had no partition when they came.
FOREIGN: Final = "predictions_foreign"
DEFAULT: Final = "predictions_default"

REQUESTS: Final = "headrace_requests"

#: How many days of partitions exist in advance. A worker may run this long without anyone creating more;
#: after that, rows go to the default partition, where they are just as safe but slower to prune.
DAYS_AHEAD: Final = 14

#: Key of the advisory lock that lets one process at a time change partitions.
_PARTITION_LOCK: Final = int.from_bytes(b"hr-parts", "big")

#: A change of partitions waits this long for running queries to end; while it waits, writers wait behind it.
_LOCK_TIMEOUT_MS: Final = 2_000

#: Rows one DELETE removes from the partitions without a day: about 0.1 s of work between two commits.
PRUNE_CHUNK_ROWS: Final = 10_000

_NAME: Final = re.compile(rf"{PARENT}_(\d{{8}})")
_DAY: Final = dt.timedelta(days=1)


def partition_name(day: dt.date) -> str:
    """Return the name of a day's partition, such as `predictions_20260131`."""
    return f"{PARENT}_{day:%Y%m%d}"


def partition_day(name: str) -> dt.date | None:
    """Return the day of a partition by its name; None for a name that no day has."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        return dt.datetime.strptime(found[1], "%Y%m%d").replace(tzinfo=dt.UTC).date()
    except ValueError:
        return None


def day_range(day: dt.date) -> tuple[uuid.UUID, uuid.UUID]:
    """Return the first UUIDv7 key of a day (UTC) and the first of the next day."""
    return _first_key(day), _first_key(day + _DAY)


def _first_key(day: dt.date) -> uuid.UUID:
    midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
    return uuid.UUID(int=int(midnight.timestamp()) * 1000 << 80)


def missing_days(existing: Iterable[str], today: dt.date, days_ahead: int) -> list[dt.date]:
    """Return the days from yesterday on that still need a partition, given the names of those that exist.

    Yesterday too: requests that were submitted before midnight end after it.
    """
    present = set(existing)
    wanted = (today + _DAY * offset for offset in range(-1, days_ahead + 1))
    return [day for day in wanted if partition_name(day) not in present]


def expired_days(existing: Iterable[str], now: dt.datetime, retention_days: int) -> list[dt.date]:
    """Return the days whose partitions hold nothing younger than `retention_days`, oldest first."""
    cutoff = (now - _DAY * retention_days).date()
    return sorted(day for day in map(partition_day, existing) if day is not None and day < cutoff)


def list_partitions(connection: Connection) -> list[str]:
    """Return the names of all partitions of `predictions`, in order."""
    found = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(%s) ORDER BY c.relname",
        (PARENT,),
    )
    return [name for (name,) in found]


def ensure_partitions(
    connection: Connection, days_ahead: int = DAYS_AHEAD, *, today: dt.date | None = None
) -> list[dt.date]:
    """Create the partitions of yesterday, today and the days ahead that are missing; return the days created.

    connection: in autocommit mode. Rows in the default partition that belong to a new day move there. Safe in several
    processes at once; each partition is one short transaction. Raises errors of psycopg.
    """
    today = today or dt.datetime.now(dt.UTC).date()
    created = []
    for day in missing_days(list_partitions(connection), today, days_ahead):
        with connection.transaction():
            # The transaction's lock: behind a pooler, a session's own might be another's by the time it is released.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_PARTITION_LOCK,))
            if partition_name(day) in list_partitions(connection):
                continue
            _create_partition(connection, day)
        created.append(day)
    return created


def is_read_only(connection: Connection) -> bool:
    """Return whether the server takes no writes of this user: a replica, or set so. Raises errors of psycopg."""
    return connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


def _create_partition(connection: Connection, day: dt.date) -> None:
    first, end = day_range(day)
    names = {
        "parent": sql.Identifier(PARENT),
        "default": sql.Identifier(DEFAULT),
        "partition": sql.Identifier(partition_name(day)),
        "first": sql.Literal(first),
        "end": sql.Literal(end),
    }
    _lock_parent(connection)
    for statement in (
        "CREATE TABLE {partition} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        "WITH moved AS (DELETE FROM {default} WHERE id >= {first} AND id < {end} RETURNING *) "
        "INSERT INTO {partition} SELECT * FROM moved",
        "ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({end})",
    ):
        connection.execute(sql.SQL(statement).format(**names))


def _lock_parent(connection: Connection) -> None:
    """Keep writers out of `predictions` until the transaction ends, always parent first so that nobody deadlocks."""
    connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(PARENT)))


def prune(database_url: str, retention_days: int, now: dt.datetime) -> int:
    """Remove what is older than `retention_days` before `now`, and create the partitions of the days ahead.

    Whole days go by dropping their partition; rows without a day go by `finished_at`, in chunks. 0 days keeps all.
    Durable requests go with the results of their time, also such as have not ended. Bulk jobs go when they ended before
    that time; rows of a job that has not ended stay, and so do other rows of the days on which such a job was created.

    now: aware. Gives how many rows were deleted one by one plus, by Postgres's estimate, those in dropped partitions.
    Meant to run daily. Raises StoreUnavailable, also when a long query holds a partition: run it again later.
    """
    if retention_days < 0:
        raise ConfigurationError(f"retention_days must be 0 (keep all) or more, but is {retention_days}")
    with driver_errors_translated(), connect(database_url, LONG_WORK_S) as connection:
        ensure_partitions(connection, today=now.astimezone(dt.UTC).date())
        if retention_days == 0:
            return 0
        removed = 0
        live = live_jobs(connection)
        for day in expired_days(list_partitions(connection), now.astimezone(dt.UTC), retention_days):
            removed += 0 if day in live.days else _drop_partition(connection, partition_name(day))
        cutoff = now - _DAY * retention_days
        old_rows = sql.SQL("finished_at < {} AND (job_id IS NULL OR job_id <> ALL({}))")
        for name in (DEFAULT, FOREIGN):
            removed += _prune_rows(connection, name, old_rows.format(sql.Literal(cutoff), sql.Literal(live.ids)))
        removed += _prune_rows(connection, REQUESTS, sql.SQL("submitted_at < {}").format(sql.Literal(cutoff)))
        return removed + prune_jobs(connection, cutoff)


def _drop_partition(connection: Connection, name: str) -> int:
    partition = sql.Identifier(name)
    with connection.transaction():
        _lock_parent(connection)
        # A concurrent prune may have dropped it while this one waited for the lock.
        if connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
            return 0
        estimate = connection.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(%s)", (name,)
        ).fetchone()
        connection.execute(sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(sql.Identifier(PARENT), partition))
        connection.execute(sql.SQL("DROP TABLE {}").format(partition))
    return int(estimate[0]) if estimate else 0


def _prune_rows(connection: Connection, name: str, condition: sql.Composable) -> int:
    statement = sql.SQL("DELETE FROM {0} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {0} WHERE {1} LIMIT {2}))").format(
        sql.Identifier(name), condition, sql.Literal(PRUNE_CHUNK_ROWS)
    )
    removed = 0
    while True:
        count = connection.execute(statement).rowcount
        removed += count
        if count < PRUNE_CHUNK_ROWS:
            return removed
