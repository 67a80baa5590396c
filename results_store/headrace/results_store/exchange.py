"""One statement whose answer is taken later: the caller does something else while Postgres works."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

#: A server that doesn't take a statement, or doesn't answer it, for this long is away.
ANSWER_S: Final = 10.0

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


def start(connection: Connection, statement: bytes, parameters: Parameters) -> None:
    """Send a statement. The connection must be in autocommit mode and idle. Raises errors of psycopg."""
    pgconn = connection.pgconn
    pgconn.send_query_params(
        statement, parameters.values, param_types=parameters.oids, param_formats=parameters.formats
    )
    until = time.monotonic() + ANSWER_S
    while pgconn.flush():
        # The server may have to say something before it reads on.
        if _wait(pgconn, select.POLLIN | select.POLLOUT, until) & select.POLLIN:
            pgconn.consume_input()


def finish(connection: Connection) -> None:
    """Wait for the answer of the statement that was started. Raises errors of psycopg."""
    pgconn = connection.pgconn
    until = time.monotonic() + ANSWER_S
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            _wait(pgconn, select.POLLIN, until)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        results.append(result)
    for result in results:
        if result.status not in _DONE:
            raise psycopg.errors.error_from_result(result)


def is_under_way(connection: Connection) -> bool:
    """Return whether a statement was started whose answer is still to be taken."""
    return connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE


def _wait(pgconn: pq.abc.PGconn, events: int, until: float) -> int:
    poll = select.poll()
    poll.register(pgconn.socket, events)
    found: Sequence[tuple[int, int]] = poll.poll(max(0.0, until - time.monotonic()) * 1000)
    if not found:
        raise psycopg.OperationalError(f"no answer within {ANSWER_S:g} s")
    return found[0][1]
