"""The ledger's connection to Postgres: short transactions, and a fresh connection after one was lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus

from headrace.results_store.database.address import connect, connection_info
from headrace.results_store.database.bounded import ANSWER_S, BoundedConnection
from headrace.results_store.database.errors import driver_errors_translated
from headrace.results_store.writing import exchange

#: Values of a statement by their names.
Values: TypeAlias = Mapping[str, object]


class LedgerConnection:
    """Opens a connection when it is first needed, and again after it was lost. For one thread.

    Nothing is kept in a session, so that a pooler may lend another one to each transaction.
    """

    def __init__(self, database_url: str, timeout_s: float = ANSWER_S) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. timeout_s: silence for so long is a lost server.

        Raises ConfigurationError when the URL can't be read.
        """
        connection_info(database_url)
        self._database_url = database_url
        self._timeout_s = timeout_s
        self._connection: BoundedConnection | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[BoundedConnection]:
        """Run the body in one transaction. Raises StoreUnavailable, after which it may be committed all the same."""
        with self._lent() as connection, connection.transaction():
            yield connection

    def rows(self, statement: str, values: Values) -> list[tuple[Any, ...]]:
        """Execute one statement in a transaction of its own; return its rows. Raises StoreUnavailable."""
        with self._lent() as connection:
            return connection.execute(statement, values).fetchall()

    def change(self, statement: str, values: Values) -> int:
        """Execute one statement in a transaction of its own; return how many rows it changed."""
        with self._lent() as connection:
            return connection.execute(statement, values).rowcount

    @contextlib.contextmanager
    def _lent(self) -> Iterator[BoundedConnection]:
        with driver_errors_translated():
            connection = self._connected()
            try:
                yield connection
            finally:
                if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    self.close()

    def _connected(self) -> BoundedConnection:
        if self._connection is None or not _lives(self._connection):
            self.close()
            self._connection = connect(self._database_url, self._timeout_s)
        return self._connection

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _lives(connection: BoundedConnection) -> bool:
    """Return whether the server has not ended a connection that lay idle."""
    if connection.closed:
        return False
    try:
        exchange.take_news(connection)
    except psycopg.Error:
        return False
    return bool(connection.pgconn.transaction_status == TransactionStatus.IDLE)
