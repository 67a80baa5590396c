"""Brings the schema of a database to this release, and refuses to work with any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from headrace.contracts.errors import ConfigurationError
from headrace.results_store.database.address import connect, create_engine
from headrace.results_store.database.bounded import LONG_WORK_S
from headrace.results_store.database.errors import MIGRATE_HINT, driver_errors_translated
from headrace.results_store.schema import REVISIONS, VERSION_TABLE
from headrace.results_store.writing.partitions import ensure_partitions

if TYPE_CHECKING:
    from alembic.config import Config

#: Key of the advisory lock that lets one migrator at a time work on a database ("headrace" in ASCII).
MIGRATION_LOCK: Final = int.from_bytes(b"headrace", "big")


def migrate(database_url: str) -> None:
    """Bring the database to this release's schema and make the partitions of the days to come.

    Does nothing where nothing is to do, and may run in several processes at once: one works, the others wait.
    Raises ConfigurationError when the database belongs to a newer release, StoreUnavailable when it can't be reached.
    """
    from alembic import command

    engine = create_engine(database_url, pool_size=1, answer_s=LONG_WORK_S)
    try:
        # One transaction holds lock and migrations: a session's own lock would stay behind in a pooler for ever.
        with driver_errors_translated(), engine.connect() as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                found = _read_revision(connection)
                if found is not None and found not in REVISIONS:
                    raise ConfigurationError(_newer(found))
                if found != REVISIONS[-1]:
                    command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()
    with driver_errors_translated(), connect(database_url, LONG_WORK_S) as single:
        ensure_partitions(single)


def alembic_config(connection: sa.Connection) -> Config:
    """Return Alembic's configuration for the migrations of this package, run on `connection`."""
    from alembic.config import Config

    config = Config()
    # ConfigParser reads a percent sign as interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def current_revision(database_url: str) -> str | None:
    """Return the revision of the database's schema; None when it was never migrated. Raises StoreUnavailable."""
    engine = create_engine(database_url, pool_size=1)
    try:
        with driver_errors_translated(), engine.connect() as connection:
            return _read_revision(connection)
    finally:
        engine.dispose()


def check_schema(database_url: str) -> None:
    """Make sure that the database has exactly the schema of this release.

    Raises ConfigurationError that says whether the database or headrace is behind, StoreUnavailable when it can't
    be reached.
    """
    found = current_revision(database_url)
    if found == REVISIONS[-1]:
        return
    if found is None:
        raise ConfigurationError(f"the database has no headrace schema yet; {MIGRATE_HINT}")
    if found in REVISIONS:
        raise ConfigurationError(f"the database has schema {found}, this release needs {REVISIONS[-1]}; {MIGRATE_HINT}")
    raise ConfigurationError(_newer(found))


def _newer(found: str) -> str:
    return (
        f"the database has schema {found}, newer than {REVISIONS[-1]} of this release; upgrade headrace here "
        "to the release that ran `headrace store migrate`"
    )


def _read_revision(connection: sa.Connection) -> str | None:
    if not connection.execute(sa.select(sa.func.to_regclass(VERSION_TABLE).is_not(None))).scalar_one():
        return None
    found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)
