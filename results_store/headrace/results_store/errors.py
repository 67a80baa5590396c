"""The one seam where errors of the Postgres driver become errors of headrace.

HeadraceError
├── InvalidRequest        a read names something that Postgres can't hold or compare
├── StoreUnavailable      no connection, or the server can't write now: the same call may succeed later
├── ConfigurationError    the schema is missing or of another release, or the URL is wrong
└── StoreRejected         Postgres refuses some rows, and always will
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

import psycopg
import sqlalchemy.exc

from headrace.contracts.errors import ConfigurationError, HeadraceError, InvalidRequest, StoreUnavailable

MIGRATE_HINT: Final = "run `headrace store migrate`"

#: SQLSTATE classes that blame the data of a row: data exceptions, constraint violations, program limits.
_DATA_CLASSES: Final = ("22", "23", "54")

#: SQLSTATE of a missing privilege: in class 42, but no migration cures it.
_NO_PRIVILEGE: Final = "42501"

#: SQLSTATE classes that say that table or columns are not those of this release.
_SCHEMA_CLASSES: Final = ("42", "3F")


class StoreRejected(HeadraceError):
    """Postgres refused some rows, so nothing of this write was stored; write again without the rows in `ids`."""

    def __init__(self, ids: Sequence[uuid.UUID], message: str) -> None:
        """ids: the rows that Postgres refused, no others. message: what it said of the first of them."""
        super().__init__(message)
        self.ids = tuple(ids)


def is_data_error(error: psycopg.Error) -> bool:
    """Say whether the data of some row caused this error, so that other rows may be stored without it."""
    return (error.sqlstate or "").startswith(_DATA_CLASSES)


def primary_message(error: psycopg.Error) -> str:
    """Give the first line of what Postgres said; its DETAIL, which may quote values of rows, stays away."""
    return (error.diag.message_primary or str(error).strip().partition("\n")[0]).rstrip(".")


def translate(error: psycopg.Error) -> HeadraceError:
    """Give the error of headrace that stands for an error of the driver; neither holds values of rows or passwords."""
    code = error.sqlstate or ""
    said = primary_message(error)
    if isinstance(error, psycopg.DataError):
        return InvalidRequest(f"Postgres can't use a value that was given: {said}; correct it")
    if code == _NO_PRIVILEGE:
        return ConfigurationError(f"the database user of HEADRACE_DATABASE_URL lacks a privilege: {said}; grant it")
    if code.startswith(_SCHEMA_CLASSES):
        return ConfigurationError(f"the database schema does not fit this release: {said}; {MIGRATE_HINT}")
    if code:
        return StoreUnavailable(f"Postgres could not do it now: {said} (SQLSTATE {code}); the server's log has more")
    return StoreUnavailable(f"Postgres can't be reached: {said}; check HEADRACE_DATABASE_URL and that the server runs")


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
