"""The servers of a test session: a real Valkey and a real Postgres, and what each test gets of them for itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.cli.stack.servers import Postgres, Valkey

#: Enough that no two tests of a session use the same one; they cost the server nothing before their first key. Celery
#: keeps connections for the whole process, by address: a second test would get one that was closed after the first.
_DATABASES: Final = 20_000

_TEMPLATE: Final = "headrace_template"


class TemporaryStack:
    """A Valkey and a Postgres under one folder, each started when it is first needed. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """folder: for the servers' data, made if missing; whoever made it removes it."""
        self.folder = folder
        self._running = ExitStack()
        self._numbers = itertools.cycle(range(1, _DATABASES))
        self._names = (f"test_{number}" for number in itertools.count())

    @cached_property
    def valkey(self) -> Valkey:
        """The running Valkey. Raises StackError when it can't be started."""
        return self._running.enter_context(Valkey(self.folder / "valkey", databases=_DATABASES))

    @cached_property
    def postgres(self) -> Postgres:
        """The running Postgres. Raises StackError when it can't be started."""
        return self._running.enter_context(Postgres(self.folder / "postgres"))

    @contextmanager
    def key_space(self) -> Iterator[str]:
        """Yield the URL of an empty Valkey database that nobody else uses meanwhile; empty it afterwards."""
        import redis

        url = f"redis://{self.valkey.host}:{self.valkey.port}/{next(self._numbers)}"
        with redis.Redis.from_url(url) as client:
            client.flushdb()
            yield url
            client.flushdb()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new, empty Postgres database; drop it afterwards."""
        with self._copy_of("template1") as url:
            yield url

    @contextmanager
    def results_store(self) -> Iterator[str]:
        """Yield the URL of a new database with the tables of the results store; drop it afterwards."""
        with self._copy_of(self._migrated) as url:
            yield url

    @cached_property
    def _migrated(self) -> str:
        """The name of a migrated database that nobody writes to: copying it is faster than migrating anew."""
        from headrace.results_store import migrate

        self.postgres.create_database(_TEMPLATE)
        migrate(self.postgres.url_of(_TEMPLATE))
        return _TEMPLATE

    @contextmanager
    def _copy_of(self, template: str) -> Iterator[str]:
        import psycopg
        from psycopg import sql

        name = next(self._names)
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        with psycopg.connect(self.postgres.url, autocommit=True) as admin:
            admin.execute(create)
            yield self.postgres.url_of(name)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def __enter__(self) -> Self:
        """Return the stack itself; nothing is started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers that were started."""
        self._running.close()
