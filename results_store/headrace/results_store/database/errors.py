"""The one seam where errors of the Postgres driver become errors of headrace.

HeadraceError
├── InvalidRequest        a read names something that Postgres can't hold or compare
├── StoreUnavailable      no connection, or the server can't write now: the same call may succeed later
│   └── StoreBusy         the server runs, but takes no connection now
├── ConfigurationError    the schema is missing or of another release, or the URL is wrong
└── StoreRejected         Postgres refuses some rows and takes others
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg
import sqlalchemy.exc

from headrace.contracts.errors import ConfigurationError, HeadraceError, InvalidRequest, StoreUnavailable

MIGRATE_HINT: Final = "run `headrace store migrate`"

_REACH_HINT: Final = "check HEADRACE_DATABASE_URL and that the server runs"

#: SQLSTATE of a missing privilege: in class 42, but no migration cures it.
_NO_PRIVILEGE: Final = "42501"

#: SQLSTATE of a write where only reads are allowed.
_READ_ONLY: Final = "25006"

READ_ONLY_HINT: Final = (
    "HEADRACE_DATABASE_URL must lead to the primary (with several hosts in it, add target_session_attrs=read-write)"
)

#: How a server, or a pooler, refuses a connection that it may accept later; libpq gives no SQLSTATE of it.
_NO_ROOM: Final = re.compile("too many (clients|connections)|connection slots|no more connections allowed")
_NOT_YET: Final = re.compile("database system is (starting up|shutting down|not yet accepting|in recovery)")

_FATAL: Final = "FATAL:"

#: SQLSTATE classes that mean that table or columns are not those of this release.
_SCHEMA_CLASSES: Final = ("42", "3F")


class StoreBusy(StoreUnavailable):
    """Postgres runs, but takes no connection now; try again later."""


class StoreRejected(HeadraceError):
    """Postgres refused some rows while it took others; write again without those in `refused`."""

    def __init__(self, refused: Mapping[uuid.UUID, str], message: str) -> None:
        """refused: the rows that Postgres refused, no others, each with its SQLSTATE. message: said of the first."""
        super().__init__(message)
        self.refused = dict(refused)


def primary_message(error: psycopg.Error) -> str:
    """Return the first line of what Postgres said; its DETAIL, which may quote values of rows, stays away."""
    return (error.diag.message_primary or str(error).strip().partition("\n")[0]).rstrip(".")


def translate(error: psycopg.Error) -> HeadraceError:
    """Return the error of headrace for an error of the driver; neither holds values of rows or passwords."""
    code = error.sqlstate or ""
    said = primary_message(error)
    if isinstance(error, psycopg.DataError):
        return InvalidRequest(f"Postgres can't use a value that was given: {said}; correct it")
    if code == _NO_PRIVILEGE:
        return ConfigurationError(f"the database user of HEADRACE_DATABASE_URL lacks a privilege: {said}; grant it")
    if code.startswith(_SCHEMA_CLASSES):
        return ConfigurationError(f"the database schema does not fit this release: {said}; {MIGRATE_HINT}")
    if code == _READ_ONLY:
        return StoreUnavailable(f"Postgres takes no writes: {said} (SQLSTATE {code}); {READ_ONLY_HINT}")
    if code:
        return StoreUnavailable(f"Postgres could not do it now: {said} (SQLSTATE {code}); the server's log has more")
    _, refused, why = said.partition(_FATAL)
    return (
        _connection_error(why.strip())
        if refused
        else StoreUnavailable(f"Postgres can't be reached: {said}; {_REACH_HINT}")
    )


def _connection_error(why: str) -> HeadraceError:
    """Return the error for a connection that the server answered and ended with these words."""
    said = f"Postgres refuses the connection: {why}"
    if _NO_ROOM.search(why):
        return StoreBusy(f"{said}; raise its max_connections, or put a pooler such as pgbouncer before it")
    if _NOT_YET.search(why):
        return StoreBusy(f"{said}; wait until it is ready")
    return StoreUnavailable(f"{said}; check HEADRACE_DATABASE_URL")


@contextlib.contextmanager
def driver_errors_translated() -> Iterator[None]:
    """Raise errors of psycopg and SQLAlchemy inside the block as errors of headrace."""
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc) from exc
    except sqlalchemy.exc.DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            raise translate(exc.orig) from exc.orig
        raise
    except sqlalchemy.exc.TimeoutError as exc:
        raise StoreUnavailable("every pooled connection to Postgres is in use; read with fewer threads") from exc
