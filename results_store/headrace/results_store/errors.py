"""The one seam where errors of the Postgres driver become errors of headrace.

HeadraceError
├── InvalidRequest        a read names something that Postgres can't hold or compare
├── StoreUnavailable      no connection, or the server can't write now: the same call may succeed later
├── ConfigurationError    the schema is missing or of another release, or the URL is wrong
└── StoreRejected         Postgres refuses some rows and takes others
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg
import sqlalchemy.exc

from headrace.contracts.errors import ConfigurationError, HeadraceError, InvalidRequest, StoreUnavailable

MIGRATE_HINT: Final = "run `headrace store migrate`"

#: SQLSTATE of a missing privilege: in class 42, but no migration cures it.
_NO_PRIVILEGE: Final = "42501"

#: SQLSTATE classes that say that table or columns are not those of this release.
_SCHEMA_CLASSES: Final = ("42", "3F")


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
