"""Durable requests as part of an application's own transaction: sent when it commits, never if it is rolled back."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
import sqlalchemy as sa
import sqlalchemy.exc
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from headrace.contracts.errors import ConfigurationError, HeadraceError, InvalidRequest, StoreUnavailable
from headrace.results_store.database.errors import MIGRATE_HINT, translate
from headrace.results_store.durable.block import CHANNEL, INSERT_FOR_RELAY, DurableBlock, parameters, prepare
from headrace.results_store.schema import requests

#: What an application may hand over.
Transaction: TypeAlias = psycopg.Connection[Any] | sa.Connection | Session | scoped_session[Any]
AsyncTransaction: TypeAlias = psycopg.AsyncConnection[Any] | AsyncConnection | AsyncSession | async_scoped_session[Any]

_AUTOCOMMIT: Final = (
    "the connection is in autocommit mode, so there is no transaction that the request could be part of; begin one, or "
    "give durable=True without a connection"
)
_FAILED: Final = "the transaction of this connection has failed; roll it back and submit again in a new one"
_ELSEWHERE: Final = (
    "the connection leads to another database than HEADRACE_DATABASE_URL, where no worker would see the request; give "
    f"one to that database, and if this is it, {MIGRATE_HINT}"
)
_WRONG_KIND: Final = (
    "connection is of type {}; {} takes an {}connection of psycopg, or a connection or session of SQLAlchemy"
)
_READ_ONLY: Final = "the transaction is read-only; give a connection to the primary, in a transaction that may write"

#: SQLSTATE → what to tell the caller.
_STATES: Final[dict[str, tuple[type[HeadraceError], str]]] = {
    "25P02": (InvalidRequest, _FAILED),
    "25006": (InvalidRequest, _READ_ONLY),
    "42P01": (ConfigurationError, _ELSEWHERE),
    "42501": (
        ConfigurationError,
        "the user of this connection may not insert into headrace_requests, or read headrace_relays; grant it, see "
        "docs/security.md",
    ),
}

_DATABASE_ID: Final = "SELECT database_id FROM headrace_relays WHERE prefix = ''"

#: Databases that were found to be the right ones: of engines, and of connections by address.
_engines: Final[WeakKeyDictionary[sa.Engine, uuid.UUID]] = WeakKeyDictionary()
_addresses: Final[dict[tuple[str, int, str], uuid.UUID]] = {}


def _insert_statement() -> sa.Select[Any]:
    names = ("id", "prefix", "queue", "priority", "keys", "names", "template", "messages")
    values = {name: sa.bindparam(f"new_{name}", type_=requests.c[name].type) for name in names}
    new = sa.insert(requests).values(due_at=sa.func.now(), **values).cte("new")
    return sa.select(sa.func.pg_notify(CHANNEL, "")).add_cte(new)


#: Built once, since building it takes longer than running it.
_INSERT: Final = _insert_statement()


def insert_within(transaction: Transaction, block: DurableBlock, database_id: uuid.UUID) -> None:
    """Insert requests in an application's transaction; a relay is woken when it commits.

    database_id: of the database of HEADRACE_DATABASE_URL; the first time that of the connection is compared with it.
    Raises InvalidRequest when there is no transaction or it has failed or can't write, ConfigurationError for another
    database or missing rights, StoreUnavailable.
    """
    with application_errors():
        if isinstance(transaction, psycopg.Connection):
            address = _checked(transaction)
            if _addresses.get(address) != database_id:
                with transaction.transaction():
                    row = _plain(transaction).execute(_DATABASE_ID).fetchone()
                _addresses[address] = _compared(row, database_id)
            transaction.execute(INSERT_FOR_RELAY, parameters(block))
        elif isinstance(transaction, Session | scoped_session):
            _insert_with_sqlalchemy(transaction.connection(), block, database_id)
        elif isinstance(transaction, sa.Connection):
            _insert_with_sqlalchemy(transaction, block, database_id)
        else:
            raise InvalidRequest(_WRONG_KIND.format(type(transaction).__name__, "Client", ""))


async def insert_within_async(transaction: AsyncTransaction, block: DurableBlock, database_id: uuid.UUID) -> None:
    """Insert requests in an application's transaction; see `insert_within`."""
    with application_errors():
        if isinstance(transaction, psycopg.AsyncConnection):
            address = _checked(transaction)
            if _addresses.get(address) != database_id:
                async with transaction.transaction():
                    cursor = await _plain_async(transaction).execute(_DATABASE_ID)
                    row = await cursor.fetchone()
                _addresses[address] = _compared(row, database_id)
            await transaction.execute(INSERT_FOR_RELAY, parameters(block))
            return
        if isinstance(transaction, AsyncSession | async_scoped_session):
            transaction = await transaction.connection()
        if not isinstance(transaction, AsyncConnection):
            raise InvalidRequest(_WRONG_KIND.format(type(transaction).__name__, "AsyncClient", "asynchronous "))
        await transaction.run_sync(_insert_with_sqlalchemy, block, database_id)


def _checked(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> tuple[str, int, str]:
    """Return where a connection leads, after a look at its transaction; it can insert blocks from now on."""
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise InvalidRequest(_FAILED)
    if connection.autocommit and status == TransactionStatus.IDLE:
        raise InvalidRequest(_AUTOCOMMIT)
    prepare(connection)
    info = connection.info
    return info.host, info.port, info.dbname


def _plain(connection: psycopg.Connection[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
    """Return a cursor whose rows are tuples, whatever the application prefers."""
    return psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row)


def _plain_async(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    return psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row)


def _compared(row: Any, database_id: uuid.UUID) -> uuid.UUID:
    if row is None or row[0] != database_id:
        raise ConfigurationError(_ELSEWHERE)
    return database_id


def _insert_with_sqlalchemy(connection: sa.Connection, block: DurableBlock, database_id: uuid.UUID) -> None:
    """Insert requests through SQLAlchemy, whatever its driver."""
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise InvalidRequest(_AUTOCOMMIT)
    if _engines.get(connection.engine) != database_id:
        with connection.begin_nested():
            # Typed, since a text column of another driver would give a string.
            row = connection.execute(sa.text(_DATABASE_ID).columns(database_id=sa.Uuid)).one_or_none()
        _engines[connection.engine] = _compared(row, database_id)
    template, messages = block.packed()
    values = {
        "id": block.id,
        "prefix": block.prefix,
        "queue": block.queue,
        "priority": block.priority,
        "keys": [uuid.UUID(bytes=key) for key in block.keys],
        "names": block.names,
        "template": template,
        "messages": list(messages),
    }
    connection.execute(_INSERT, {f"new_{name}": value for name, value in values.items()})


@contextlib.contextmanager
def application_errors() -> Iterator[None]:
    """Raise what the driver of an application's connection raises as errors of headrace, in one line."""
    try:
        yield
    except psycopg.Error as exc:
        raise _told(exc) from exc
    except sqlalchemy.exc.DBAPIError as exc:
        raise _told(exc.orig or exc) from exc
    except (sqlalchemy.exc.PendingRollbackError, sqlalchemy.exc.InvalidRequestError) as exc:
        raise InvalidRequest(_FAILED) from exc


def _told(error: BaseException) -> HeadraceError:
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    if state in _STATES:
        kind, message = _STATES[state]
        return kind(message)
    if isinstance(error, psycopg.Error):
        return translate(error)
    first = str(error).strip().partition("\n")[0]
    return StoreUnavailable(f"Postgres could not do it now: {first} (SQLSTATE {state or 'unknown'})")
