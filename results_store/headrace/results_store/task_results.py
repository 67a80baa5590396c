"""Results, groups and chords of ordinary Celery tasks: keys with values and a time at which they expire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.results_store.database.address import create_engine
from headrace.results_store.database.errors import driver_errors_translated
from headrace.results_store.schema import task_results

_table = task_results.c

_LIVES: Final = sa.or_(_table.expires_at.is_(None), _table.expires_at > sa.func.now())

#: Each write removes up to this many keys that have expired, more than it adds: so they go without anybody's help.
REMOVED_WITH_EACH_WRITE: Final = 2


class TaskResults:
    """A key-value store for Celery's backends, over a small pool of connections. Methods raise StoreUnavailable."""

    def __init__(self, database_url: str) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. Raises ConfigurationError when it can't be read."""
        self._engine = create_engine(database_url, pool_size=1)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none; one query."""
        wanted = sa.bindparam("keys", list(keys), pg.ARRAY(sa.LargeBinary))
        query = sa.select(_table.key, _table.value).where(_table.key == sa.any_(wanted), _LIVES)
        with self._connection() as connection:
            found = {bytes(row.key): bytes(row.value) for row in connection.execute(query)}
        return [found.get(key) for key in keys]

    def set(self, key: bytes, value: bytes, expires_s: float | None) -> None:
        """Keep a value for some seconds; None or 0 keeps it for ever."""
        new = pg.insert(task_results).values(key=key, value=value, expires_at=_expiry(expires_s))
        changed = {"value": new.excluded.value, "expires_at": new.excluded.expires_at}
        with self._connection() as connection:
            connection.execute(new.on_conflict_do_update(index_elements=[_table.key], set_=changed))
            connection.execute(_EXPIRED)

    def increment(self, key: bytes) -> int:
        """Add one to a number, which begins with 0, and return it."""
        text = sa.func.convert_from(_table.value, "UTF8")
        one_more = sa.func.convert_to(sa.cast(sa.cast(text, sa.BigInteger) + 1, sa.Text), "UTF8")
        new = pg.insert(task_results).values(key=key, value=b"1")
        query = new.on_conflict_do_update(index_elements=[_table.key], set_={"value": one_more}).returning(_table.value)
        with self._connection() as connection:
            return int(bytes(connection.execute(query).scalar_one()))

    def expire(self, key: bytes, expires_s: float | None) -> None:
        """Keep a key for a number of seconds from now; None or 0 keeps it for ever."""
        with self._connection() as connection:
            query = sa.update(task_results).where(_table.key == key).values(expires_at=_expiry(expires_s))
            connection.execute(query)

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        with self._connection() as connection:
            connection.execute(sa.delete(task_results).where(_table.key == key))

    def close(self) -> None:
        """Close the connections; they are opened again when needed."""
        self._engine.dispose()

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with driver_errors_translated(), self._engine.connect() as connection:
            yield connection


_OLDEST: Final = (
    sa.select(_table.key)
    .where(_table.expires_at <= sa.func.now())
    .order_by(_table.expires_at)
    .limit(REMOVED_WITH_EACH_WRITE)
    .with_for_update(skip_locked=True)
)
_EXPIRED: Final = sa.delete(task_results).where(_table.key.in_(_OLDEST.scalar_subquery()))


def _expiry(seconds: float | None) -> sa.ColumnElement[Any]:
    """Return the time after some seconds, on the server's clock."""
    if not seconds:
        return sa.null()
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, float(seconds))
