"""Database addresses: `postgresql://` URLs, as libpq reads them, for psycopg and for SQLAlchemy."""

from __future__ import annotations

import math
from typing import Any, Final

import orjson
import psycopg
import sqlalchemy as sa
from psycopg import conninfo
from psycopg.adapt import AdaptersMap
from psycopg.types.json import set_json_loads

from headrace.contracts.errors import ConfigurationError
from headrace.results_store.database.bounded import (
    ANSWER_S,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_S,
    KEEPALIVE_INTERVAL_S,
    BoundedConnection,
)

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")

#: A connection attempt takes no longer than this, whatever is done with it afterwards.
CONNECT_S: Final = 30.0

#: libpq takes a shorter time for a connection attempt as this, in seconds.
_LEAST_CONNECT_TIMEOUT_S: Final = 2

_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "headrace",
    "keepalives_idle": KEEPALIVE_IDLE_S,
    "keepalives_interval": KEEPALIVE_INTERVAL_S,
    "keepalives_count": KEEPALIVE_COUNT,
    # Nothing in `options`: poolers refuse it (pgbouncer's `ignore_startup_parameters`).
}

#: A statement that was executed so often is prepared by psycopg, unless a pooler is between.
_PREPARE_THRESHOLD: Final = 5


def connection_info(database_url: str, answer_s: float = ANSWER_S) -> str:
    """Return libpq's connection string for a `postgresql://` URL, with time-outs where the URL sets none.

    answer_s: a server that is silent for so long is lost, while it connects and when bytes are not acknowledged.
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
    bounds = {
        "connect_timeout": max(_LEAST_CONNECT_TIMEOUT_S, math.ceil(answer_s)),
        "tcp_user_timeout": math.ceil(answer_s * 1000),
    }
    return conninfo.make_conninfo("", **{**_DEFAULTS, **bounds, **given})


def connect(database_url: str, answer_s: float = ANSWER_S) -> BoundedConnection:
    """Open a connection in autocommit mode. Raises psycopg.OperationalError, for `errors` to translate."""
    # psycopg must not prepare statements by itself: after a ROLLBACK or DROP it deallocates all, the writer's too.
    info = connection_info(database_url, min(answer_s, CONNECT_S))
    connection = BoundedConnection.opened(info, autocommit=True, prepare_threshold=None)
    connection.answer_s = answer_s
    return connection


def create_engine(database_url: str, *, pool_size: int = 5, answer_s: float = ANSWER_S) -> sa.Engine:
    """Make a lazy SQLAlchemy engine in autocommit mode; libpq itself reads the URL, so nothing is lost on the way."""
    info = connection_info(database_url, min(answer_s, CONNECT_S))
    adapters = AdaptersMap(psycopg.adapters)
    # jsonb writes large floats as integers; beyond 64 bits, this reader makes floats of them again.
    set_json_loads(orjson.loads, adapters)

    def connected() -> BoundedConnection:
        connection = BoundedConnection.opened(info, context=adapters, autocommit=True, prepare_threshold=None)
        connection.answer_s = answer_s
        try:
            if not is_pooled(connection):
                connection.prepare_threshold = _PREPARE_THRESHOLD
        except psycopg.Error:
            connection.close()
            raise
        return connection

    return sa.create_engine(
        "postgresql+psycopg://",
        creator=connected,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler is between, so that the next transaction may be another session's; one round trip.

    A pooler must send its clients keys of its own for the cancelling of statements, and so process ids of its own.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid
