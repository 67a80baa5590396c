"""The INSERTs of the hot path: prepared once a session where the session is ours, else sent whole each time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Final

from psycopg import pq
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName, error_from_result

from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.writing.columns import NAMES, UNNEST, Columns, array_parameters

logger = logging.getLogger(__name__)

_INSERT: Final = f"INSERT INTO predictions ({', '.join(NAMES)}) SELECT {UNNEST}"

#: An id that exists already is rare, and ON CONFLICT costs every row a quarter of its time (a second look into the
#: index, a speculative insertion and its confirmation in the WAL); so rows go in plainly first, and only a write that
#: meets a conflict goes in again with it.
PLAIN: Final = _INSERT.encode()
SKIPPING: Final = f"{_INSERT} ON CONFLICT DO NOTHING".encode()

_BINARY: Final = [pq.Format.BINARY] * len(NAMES)

#: SQLSTATEs of a prepared statement that is gone, or is there although this session never prepared it: the sign of a
#: pooler that lends another session to each transaction.
_GONE: Final = str(InvalidSqlStatementName.sqlstate)
_THERE: Final = str(DuplicatePreparedStatement.sqlstate)


def _name(statement: bytes) -> bytes:
    # By its text: a session of a pooler may hold the statements of another release of headrace, of other columns.
    return b"headrace_" + hashlib.sha256(statement).hexdigest()[:24].encode()


class Statements:
    """Executes the INSERTs over the connections of one writer."""

    def __init__(self) -> None:
        """Nothing is prepared yet."""
        self._names: dict[bytes, bytes] = {statement: _name(statement) for statement in (PLAIN, SKIPPING)}

    def prepare(self, connection: BoundedConnection) -> None:
        """Prepare the statements on a new connection. Raises psycopg.Error."""
        for statement, name in self._names.items():
            result = connection.prepare_statement(name, statement)
            if result.status != pq.ExecStatus.COMMAND_OK and _state_of(result) != _THERE:
                raise error_from_result(result)

    def execute(self, connection: BoundedConnection, statement: bytes, columns: Columns) -> int:
        """Insert rows; return how many. statement: PLAIN or SKIPPING. Raises psycopg.Error."""
        # libpq itself, below psycopg's cursors: one call that gives up the GIL once, at an eighth of the CPU.
        parameters = array_parameters(columns)
        name = self._names.get(statement)
        if name is not None:
            result = connection.execute_prepared(name, parameters, _BINARY)
            if result.status == pq.ExecStatus.COMMAND_OK:
                return result.command_tuples or 0
            if _state_of(result) != _GONE:
                raise error_from_result(result)
            # Nothing was written, so it is sent whole; if that is taken, then always, for the next would meet the same.
            count = execute_whole(connection, statement, parameters)
            self._names = {}
            logger.info("store.pooled: prepared statements don't last here; each is sent with its text from now on")
            return count
        return execute_whole(connection, statement, parameters)


def execute_whole(connection: BoundedConnection, statement: bytes, parameters: Sequence[bytes]) -> int:
    """Insert rows without a prepared statement; return how many. Raises psycopg.Error."""
    result = connection.execute_once(statement, parameters, _BINARY)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise error_from_result(result)
    return result.command_tuples or 0


def _state_of(result: pq.abc.PGresult) -> str:
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
