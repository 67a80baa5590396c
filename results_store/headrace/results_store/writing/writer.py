"""Writes finished batches: one statement, one round trip, one commit, whatever the number of rows."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import pq
from psycopg.errors import UniqueViolation

from headrace.results_store.database.address import connect, connection_info
from headrace.results_store.database.bounded import ANSWER_S, BoundedConnection, SilentServer, Watchdog
from headrace.results_store.database.errors import StoreRejected, translate
from headrace.results_store.writing.columns import (
    ID,
    NAMES,
    Columns,
    copy_stream,
    encode_columns,
    encoded_bytes,
    find_unencodable,
    microseconds,
)
from headrace.results_store.writing.row_recovery import RowRecovery
from headrace.results_store.writing.rows import BatchRows, Conflict
from headrace.results_store.writing.statements import PLAIN, SKIPPING, Statements

#: Above either of these a write goes by COPY: beyond about 2,000 rows it is faster (benchmarks/store.py), and Postgres
#: takes no array of more than 1 GB.
COPY_ROWS: Final = 2_000
COPY_BYTES: Final = 32 << 20

_COLUMN_LIST: Final = ", ".join(NAMES)

_COPY: Final = f"COPY predictions ({_COLUMN_LIST}) FROM STDIN (FORMAT binary)"
_STAGE: Final = "CREATE TEMPORARY TABLE headrace_stage (LIKE predictions) ON COMMIT DROP"
_COPY_STAGE: Final = f"COPY headrace_stage ({_COLUMN_LIST}) FROM STDIN (FORMAT binary)"
_INSERT_STAGED: Final = (
    f"INSERT INTO predictions ({_COLUMN_LIST}) SELECT {_COLUMN_LIST} FROM headrace_stage ON CONFLICT DO NOTHING"  # noqa: S608
)
_FIND: Final = (
    "SELECT id, batch_id, (extract(epoch FROM finished_at) * 1000000)::bigint, state,"
    " coalesce(error->>'type', ''), coalesce(error->>'message', '') FROM predictions WHERE id = ANY(%s)"
)

#: Sessions of this user in this database that are in the middle of something of ours, and of no one else: a pooler
#: says numbers of its own.
_END_SESSIONS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s) AND pid <> pg_backend_pid()"
    " AND usename = current_user AND datname = current_database() AND state <> 'idle'"
    " AND query ~ '(predictions|headrace_stage)'"
)

#: The wait for an answer grows to this power of two: a commit that takes two minutes ends, and no session is left
#: waiting for long.
MAX_DOUBLINGS: Final = 4

#: SQLSTATE of a number that does not fit its column: such rows are refused here, Postgres never sees them.
OUT_OF_RANGE: Final = "22003"

#: A server that ends so many times in a row over the same rows is no longer taken for one that restarts.
LOSSES: Final = 3


class StoreWriter:
    """Stores batches over one connection, which it opens when first needed and again after it was lost.

    For one thread at a time. Close it, or use it as a context manager.
    """

    def __init__(
        self, database_url: str, leaving: Callable[[], None] = lambda: None, *, timeout_s: float = ANSWER_S
    ) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. leaving: called when rows are about to be sent.

        timeout_s: a server that neither takes nor sends anything for so long counts as lost. As long as it takes new
        connections and is silent to each write, the next has twice as long.
        Raises ConfigurationError when the URL can't be read.
        """
        connection_info(database_url)
        self._database_url = database_url
        self._leaving = leaving
        self._connection: BoundedConnection | None = None
        self._statements = Statements()
        # Writes in a row in the middle of which the connection was lost.
        self._lost = 0
        self._timeout_s = timeout_s
        # Writes in a row that got no answer, and the sessions they were left in.
        self._silences = 0
        self._session = 0
        self._left: list[int] = []
        self._watchdog = Watchdog()

    def write(self, batches: Sequence[BatchRows]) -> list[Conflict]:
        """Store all rows of all batches and commit: in one transaction, or in several after an error.

        The first row of an id wins.
        Returns the rows that were there already under an id of these: of another batch (the request was delivered
        twice), or of a cancel. Writing the same batch again, for example after an error, is no conflict.
        Raises StoreUnavailable (the same write may succeed later; it may even have been stored: just repeat it),
        StoreRejected (Postgres refused the rows it names, and no others; those may be stored), ConfigurationError.
        """
        try:
            columns = encode_columns(batches)
        except (struct.error, ValueError, OverflowError) as exc:
            bad = find_unencodable(batches)
            refused = {row.id: OUT_OF_RANGE for row, _ in bad}
            raise StoreRejected(refused, f"a number does not fit its column: {bad[0][1]}") from exc
        if not columns[ID]:
            return []
        try:
            connection = self._connected()
            self._leaving()
            stored = self._insert_or_recover(connection, columns)
            return [] if stored == len(columns[ID]) else _find_conflicts(self._connected(), batches)
        except psycopg.Error as exc:
            if isinstance(exc, SilentServer):
                self._silences += 1
                self._left.append(self._session)
            # Whatever went wrong, the next call starts with a fresh connection.
            self._disconnect()
            raise translate(exc) from exc

    def interrupt(self) -> None:
        """Let a write that waits for the server fail at once. Any thread."""
        self._watchdog.cut()

    def close(self) -> None:
        """Close the connection; a later `write` opens another."""
        self._watchdog.close()
        self._watchdog = Watchdog()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _connected(self) -> BoundedConnection:
        if self._connection is None or self._connection.closed:
            connection = connect(self._database_url, self._timeout_s * 2 ** min(self._silences, MAX_DOUBLINGS))
            connection.watchdog = self._watchdog
            self._session = connection.info.backend_pid
            try:
                if self._left:
                    _end_sessions(connection, self._left)
                    self._left.clear()
                self._statements.prepare(connection)
            except psycopg.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _insert_or_recover(self, connection: BoundedConnection, columns: Columns) -> int:
        """Return how many rows are new. Raises StoreRejected, or psycopg.Error when no row is to blame."""
        try:
            stored = self._insert(connection, columns)
        except psycopg.Error as exc:
            if self._is_absence(connection):
                raise
            self._lost = 0
            recovery = RowRecovery(self._idle, columns, exc)
            recovery.run()
            if recovery.refused:
                message = f"Postgres refused {len(recovery.refused)} row(s): {recovery.message}"
                raise StoreRejected(recovery.refused, message) from exc
            stored = recovery.stored
        self._lost = self._silences = 0
        return stored

    def _insert(self, connection: BoundedConnection, columns: Columns) -> int:
        """Insert in one transaction, by the way that suits the size; return how many rows were new."""
        large = len(columns[ID]) > COPY_ROWS or encoded_bytes(columns) > COPY_BYTES
        try:
            return _copy(connection, columns) if large else self._statements.execute(connection, PLAIN, columns)
        except UniqueViolation:
            if large:
                return _copy_skipping(connection, columns)
            return self._statements.execute(connection, SKIPPING, columns)

    def _is_absence(self, connection: BoundedConnection) -> bool:
        """Return whether the server is to blame because it is gone; not if it goes whenever it gets these rows."""
        if not connection.closed:
            return False
        self._lost += 1
        return self._lost < LOSSES

    def _idle(self) -> BoundedConnection:
        """Return a connection that is in no transaction."""
        if self._connection is not None and self._connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self._disconnect()
        return self._connected()


def _end_sessions(connection: BoundedConnection, pids: list[int]) -> None:
    """End sessions of writes that were given up: the server may not know of it, and keep the locks of their rows."""
    connection.execute(_END_SESSIONS, (pids,))


def _copy(connection: BoundedConnection, columns: Columns) -> int:
    with connection.cursor() as cursor:
        _stream(cursor, _COPY, columns)
        return cursor.rowcount


def _copy_skipping(connection: BoundedConnection, columns: Columns) -> int:
    """COPY knows no ON CONFLICT, so rows with a conflict among them go by a temporary table."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_STAGE)
        _stream(cursor, _COPY_STAGE, columns)
        cursor.execute(_INSERT_STAGED)
        stored = cursor.rowcount
        cursor.execute("DROP TABLE headrace_stage")
        return stored


def _stream(cursor: psycopg.Cursor[tuple[Any, ...]], statement: str, columns: Columns) -> None:
    with cursor.copy(statement) as copy:
        for piece in copy_stream(columns):
            copy.write(piece)


def _find_conflicts(connection: BoundedConnection, batches: Sequence[BatchRows]) -> list[Conflict]:
    ids = [row.id for batch in batches for row in batch.rows]
    found = {row[0]: row[1:] for row in connection.execute(_FIND, (ids,))}
    conflicts = []
    for batch in batches:
        ours = (batch.batch_id, microseconds(batch.finished_at))
        for row in batch.rows:
            # None: it was pruned or removed between the two statements.
            there = found.get(row.id)
            if there is not None and there[:2] != ours:
                state, error_type, error_message = there[2:]
                conflicts.append(Conflict(id=row.id, state=state, error_type=error_type, error_message=error_message))
    return conflicts
