"""Where the database is: `postgresql://` URLs, as libpq reads them, for psycopg and for SQLAlchemy."""

from __future__ import annotations

from typing import Any, Final

import orjson
import psycopg
import sqlalchemy as sa
from psycopg import conninfo
from psycopg.adapt import AdaptersMap
from psycopg.types.json import set_json_loads

from headrace.contracts.errors import ConfigurationError

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")

#: Unless the URL says otherwise: a connection attempt, and a peer that vanished without a word, fail after
#: this time rather than never (Linux's own limits are 2 minutes and more).
_CONNECT_TIMEOUT_S: Final = 10
_SILENCE_TIMEOUT_MS: Final = 30_000

_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "headrace",
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": _SILENCE_TIMEOUT_MS,
    # Nothing in `options`: poolers refuse it (pgbouncer's `ignore_startup_parameters`).
}

#: A statement that was executed so often is prepared by psycopg, unless a pooler is between.
_PREPARE_THRESHOLD: Final = 5


def connection_info(database_url: str) -> str:
    """Give libpq's connection string for a `postgresql://` URL, with time-outs where the URL sets none.

    Everything libpq knows may stand in the URL: `?host=/socket/dir`, `sslmode`, several hosts.
    Raises ConfigurationError without repeating the URL, which may hold a password.
    """
    scheme, found, rest = database_url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise ConfigurationError("the database URL must begin with postgresql://; check HEADRACE_DATABASE_URL")
    try:
        given = conninfo.conninfo_to_dict(f"postgresql://{rest}")
    except psycopg.ProgrammingError:
        # libpq's own message may quote a part of the password.
        raise ConfigurationError(
            "the database URL can't be read; check HEADRACE_DATABASE_URL, and percent-encode special characters in it"
        ) from None
    return conninfo.make_conninfo("", **{**_DEFAULTS, **given})


def connect(database_url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection in autocommit mode. Raises psycopg.OperationalError, for `errors` to translate."""
    # psycopg must not prepare statements by itself: after a ROLLBACK or DROP it deallocates all, the writer's too.
    return psycopg.connect(connection_info(database_url), autocommit=True, prepare_threshold=None)


def create_engine(database_url: str, *, pool_size: int = 5) -> sa.Engine:
    """Make a lazy SQLAlchemy engine in autocommit mode; libpq itself reads the URL, so nothing is lost on the way."""
    info = connection_info(database_url)
    adapters = AdaptersMap(psycopg.adapters)
    # jsonb writes large floats as integers; beyond 64 bits, this reader makes floats of them again.
    set_json_loads(orjson.loads, adapters)
    return sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _open(info, adapters),
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _open(info: str, adapters: AdaptersMap) -> psycopg.Connection[tuple[Any, ...]]:
    connection = psycopg.connect(info, context=adapters, autocommit=True, prepare_threshold=None)
    try:
        if not is_pooled(connection):
            connection.prepare_threshold = _PREPARE_THRESHOLD
    except psycopg.Error:
        connection.close()
        raise
    return connection


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler is between, so that the next transaction may be another session's; one round trip.

    A pooler must send its clients keys of its own for the cancelling of statements, and so process ids of its own.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid
