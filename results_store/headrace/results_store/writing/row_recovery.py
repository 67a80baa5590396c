"""Recovers from a write that Postgres refused: stores every row that can be stored and names those that can't."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Final

import psycopg

from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.database.errors import primary_message
from headrace.results_store.writing.columns import BLOB, OUTPUTS, Columns, array_parameters, row_id, slice_columns
from headrace.results_store.writing.error_causes import Bisection, is_data_error, may_pass
from headrace.results_store.writing.statements import SKIPPING, execute_whole

#: Pieces of several rows are cut below this size: an array parameter is a copy of its rows.
_PIECE_BYTES: Final = 32 << 20

#: SQLSTATE of a connection that was lost in the middle of a statement.
CONNECTION_LOST: Final = "08006"

#: A server whose process ended over a row restarts all others: it is back within about a second, each time.
_RECOVERY_S: Final = 20.0
_RECONNECT_S: Final = 0.25

#: The model of rows that only ask whether a write passes. They are always rolled back.
PROBE_MODEL: Final = "headrace.probe"

_PROBE: Final = """
    INSERT INTO predictions (id, finished_at, attempts, cached, state, model, version, foreign_id, blob)
    VALUES (%s, now(), 0, false, 'failed', %s, '', %s, %s)
"""

#: Random bytes, as hex, that stay in the page of the row: no row takes more room there, as Postgres moves what is
#: larger elsewhere. A probe that finds room on a full disk so means that any row does.
_INLINE_BYTES: Final = 900

#: A probe after an error for lack of something is as large as the row that met it, up to this.
_PROBE_BYTES: Final = 1 << 20

#: Half of an id in bytes: its time, by which it belongs to a partition. Probes share it with the row they ask for.
_TIME_HALF: Final = 8


class RowRecovery:
    """One attempt to store the rows of a write that failed, piece by piece; each piece is committed by itself.

    connected: returns the connection, a fresh one after it was lost. Raises what it can't explain by single rows.
    """

    def __init__(self, connected: Callable[[], BoundedConnection], columns: Columns, error: psycopg.Error) -> None:
        """error: what the write of all rows together ended with."""
        self._connected = connected
        self._columns = columns
        self._error = error
        pairs = zip(columns[OUTPUTS], columns[BLOB], strict=True)
        self._sizes_bytes = [len(outputs) + len(blob) for outputs, blob in pairs]
        patience_s = _RECOVERY_S if code_of(error) == CONNECTION_LOST else 0.0
        self._patience_until = time.monotonic() + patience_s
        #: Rows that were refused, with the SQLSTATE, though other writes passed.
        self.refused: dict[uuid.UUID, str] = {}
        #: How many rows are new in the table.
        self.stored = 0
        #: What Postgres said of the first refused row.
        self.message = ""

    def run(self) -> None:
        """Store all rows but those in `refused`. Raises psycopg.Error when the server is to blame."""
        if not is_data_error(code_of(self._error)):
            self._question(self._error, 0)
        search = Bisection(self._sizes_bytes, _PIECE_BYTES)
        while (piece := search.following()) is not None:
            connection = self._reached()
            try:
                parameters = array_parameters(slice_columns(self._columns, *piece))
                # Not prepared: what is wrong may be the prepared statement.
                self.stored += execute_whole(connection, SKIPPING, parameters)
            except psycopg.Error as exc:
                row = search.refused()
                if row is not None:
                    self._refuse(row, exc)

    def _refuse(self, row: int, error: psycopg.Error) -> None:
        code = code_of(error)
        if not is_data_error(code):
            self._question(error, row)
        self.refused[row_id(self._columns, row)] = code
        self.message = self.message or primary_message(error)

    def _question(self, error: psycopg.Error, row: int) -> None:
        """Raise the error unless another write passes now."""
        size_bytes = min(self._sizes_bytes[row], _PROBE_BYTES) if may_pass(code_of(error)) else 0
        probe_id = uuid.UUID(bytes=row_id(self._columns, row).bytes[:_TIME_HALF] + os.urandom(16 - _TIME_HALF))
        values = (probe_id, PROBE_MODEL, os.urandom(_INLINE_BYTES).hex(), os.urandom(size_bytes))
        connection = self._reached()
        try:
            _probe(connection, values)
        except psycopg.Error:
            raise error from None

    def _reached(self) -> BoundedConnection:
        """Return a connection; a server that just ended over a row is given time to come back."""
        while True:
            try:
                return self._connected()
            except psycopg.Error:
                if time.monotonic() >= self._patience_until:
                    raise
                time.sleep(_RECONNECT_S)


def code_of(error: psycopg.Error) -> str:
    """Return the SQLSTATE of an error; that of a lost connection when the server sent none."""
    return error.sqlstate or CONNECTION_LOST


def _probe(connection: BoundedConnection, values: tuple[object, ...]) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(_PROBE, values)
