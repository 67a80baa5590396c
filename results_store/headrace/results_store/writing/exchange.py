"""One statement whose answer is read later, so that the caller works while Postgres does."""

from __future__ import annotations

import select
from typing import Final

import psycopg
from psycopg import pq

from headrace.results_store.database.bounded import BoundedConnection, SilentServer

_DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Parameters:
    """The parameters of a statement, each encoded, with its type; text unless it is said to be binary."""

    def __init__(self) -> None:
        """Start without any."""
        self.values: list[bytes | None] = []
        self.oids: list[int] = []
        self.formats: list[int] = []

    def add(self, value: bytes | None, oid: int, *, binary: bool = False) -> Parameters:
        """Add one; return these."""
        self.values.append(value)
        self.oids.append(oid)
        self.formats.append(pq.Format.BINARY if binary else pq.Format.TEXT)
        return self


def start(connection: BoundedConnection, statement: bytes, parameters: Parameters) -> None:
    """Send a statement. The connection must be in autocommit mode and idle. Raises errors of psycopg."""
    pgconn = connection.pgconn
    pgconn.send_query_params(
        statement, parameters.values, param_types=parameters.oids, param_formats=parameters.formats
    )
    while pgconn.flush():
        # The server may have to say something before it reads on.
        if _wait(connection, select.POLLIN | select.POLLOUT) & select.POLLIN:
            pgconn.consume_input()


def finish(connection: BoundedConnection) -> None:
    """Wait for the answer of the statement that was started. Raises errors of psycopg."""
    pgconn = connection.pgconn
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            _wait(connection, select.POLLIN)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        results.append(result)
    for result in results:
        if result.status not in _DONE:
            raise psycopg.errors.error_from_result(result)


def take_news(connection: BoundedConnection) -> None:
    """Read what came unasked, without waiting. Raises errors of psycopg when the server has ended the connection."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    # More than once, since the reason of an end comes before the end itself.
    while poll.poll(0):
        connection.pgconn.consume_input()


def is_under_way(connection: BoundedConnection) -> bool:
    """Return whether a statement was started whose answer is still to be taken."""
    return connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE


def _wait(connection: BoundedConnection, events: int) -> int:
    """Wait until one of the events happens; a server that is silent for too long is lost."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, events)
    found = poll.poll(connection.answer_s * 1000)
    if not found:
        connection.pgconn.finish()
        raise SilentServer(f"no answer within {connection.answer_s:g} s")
    return found[0][1]
