"""Durable requests as a client writes them: over a few connections of its own, each call one short transaction."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from headrace.contracts.errors import ConfigurationError, StoreUnavailable
from headrace.results_store.database.address import connect, connection_info
from headrace.results_store.database.bounded import ANSWER_S, BoundedConnection
from headrace.results_store.database.errors import MIGRATE_HINT, driver_errors_translated
from headrace.results_store.durable.block import INSERT_FOR_CLIENT, DurableBlock, array_of, encoded_parameters
from headrace.results_store.durable.marks import Marks
from headrace.results_store.writing import exchange

_log: Final = logging.getLogger(__name__)

#: Connections at a time: commits of several threads share a sync of the disk, and more than this gain nothing.
CONNECTIONS: Final = 8

#: Longest wait for one of them.
TURN_S: Final = 30.0

#: Losing these notes costs nothing but that a request is sent twice, so they need no sync of the disk.
_MARK_ALL: Final = (
    b"UPDATE headrace_requests SET sent = cardinality(keys), due_at = NULL"
    b" FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unsynced WHERE id = ANY($1)"
)
_MARK: Final = (
    b"UPDATE headrace_requests SET sent = sent + $2,"
    b" due_at = CASE WHEN sent + $2 < cardinality(keys) THEN due_at END"
    b" FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unsynced WHERE id = $1"
)
_UUID_OID: Final = 2950
_UUIDS_OID: Final = 2951
_INT4_OID: Final = 23

_HOLD: Final = "SELECT id, due_at IS NULL FROM headrace_requests WHERE id = ANY(%s)"
_DATABASE_ID: Final = "SELECT database_id FROM headrace_relays WHERE prefix = ''"


class RequestStore:
    """Inserts and marks durable requests; usable from several threads and after a fork."""

    def __init__(self, database_url: str, timeout_s: float = ANSWER_S) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. timeout_s: silence for so long is a lost server.

        Raises ConfigurationError when the URL can't be read.
        """
        connection_info(database_url)
        self._database_url = database_url
        self._timeout_s = timeout_s
        self._database_id: uuid.UUID | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        self._process = os.getpid()
        self._free: queue.LifoQueue[BoundedConnection] = queue.LifoQueue()
        self._turns = threading.Semaphore(CONNECTIONS)
        self._marks = Marks(self._mark_all)

    @contextlib.contextmanager
    def inserting(self, block: DurableBlock) -> Iterator[None]:
        """Insert a block that the caller sends next, and commit, while the body of the `with` statement runs.

        It is committed when that statement ends without an error. Raises StoreUnavailable, after which it may be
        committed all the same, and ConfigurationError.
        """
        with self._connection() as connection:
            exchange.start(connection, INSERT_FOR_CLIENT, encoded_parameters(block))
            try:
                yield
            finally:
                exchange.finish(connection)

    def mark_sent(self, block: DurableBlock, count: int) -> None:
        """Note that the first `count` requests of a block were sent, without waiting for the write.

        Raises like `inserting`.
        """
        if count == len(block.ids):
            self._marks.note(block.id)
            return
        parameters = exchange.Parameters().add(block.id.bytes, _UUID_OID, binary=True)
        with self._connection() as connection:
            exchange.start(connection, _MARK, parameters.add(str(count).encode(), _INT4_OID))

    def _mark_all(self, block_ids: Sequence[uuid.UUID]) -> None:
        ids = array_of(_UUID_OID, [each.bytes for each in block_ids])
        with self._connection() as connection:
            exchange.start(connection, _MARK_ALL, exchange.Parameters().add(ids, _UUIDS_OID, binary=True))
            exchange.finish(connection)

    def kept(self, block_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, bool]:
        """Return which blocks have a row that others can see, and whether all of it was sent.

        Raises like `inserting`.
        """
        self._marks.make_now()
        with self._connection() as connection:
            return dict(connection.execute(_HOLD, (list(block_ids),)).fetchall())

    def database_id(self) -> uuid.UUID:
        """Return an identifier of this database. Raises like `inserting`."""
        if self._database_id is None:
            with self._connection() as connection:
                row = connection.execute(_DATABASE_ID).fetchone()
            if row is None:
                raise ConfigurationError(f"the database has no headrace schema; {MIGRATE_HINT}")
            self._database_id = row[0]
        return self._database_id

    @contextlib.contextmanager
    def _connection(self) -> Iterator[BoundedConnection]:
        if self._process != os.getpid():
            self._start_anew()
        turns, free = self._turns, self._free
        if not turns.acquire(timeout=TURN_S):
            raise StoreUnavailable(
                f"Postgres is slow or silent: no connection of this client was free within {TURN_S:g} s; check that "
                "the server runs, or use fewer threads"
            )
        try:
            with driver_errors_translated():
                connection = self._taken(free)
                try:
                    yield connection
                finally:
                    # One that an error left in an unknown state isn't used again.
                    if connection.pgconn.transaction_status in (TransactionStatus.IDLE, TransactionStatus.ACTIVE):
                        free.put(connection)
                    else:
                        connection.close()
        finally:
            turns.release()

    def _taken(self, free: queue.LifoQueue[BoundedConnection]) -> BoundedConnection:
        with contextlib.suppress(queue.Empty):
            while True:
                connection = free.get_nowait()
                if _lives(connection):
                    return connection
                connection.close()
        return connect(self._database_url, self._timeout_s)

    def close(self) -> None:
        """Write what is noted and close the connections that are not in use; a later call opens others."""
        if self._process == os.getpid():
            self._marks.make_now()
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()


def _lives(connection: BoundedConnection) -> bool:
    """Return whether a connection that lay idle can be used: the server has not ended it meanwhile."""
    if connection.closed:
        return False
    try:
        if exchange.is_under_way(connection):
            # A mark, whose fate matters to nobody: without it a relay sends once more.
            exchange.finish(connection)
        exchange.take_news(connection)
    except psycopg.Error as exc:
        _log.info("durable_connection_dropped error=%r", str(exc))
        return False
    return bool(connection.pgconn.transaction_status == TransactionStatus.IDLE)
