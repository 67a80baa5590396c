"""Servers as they are guarded in production: TLS in front, users with passwords, no more rights than needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
from psycopg import sql
from tests.security.front import AUTHORITY, TlsFront

from headrace.cli.stack.servers import Postgres, Valkey
from headrace.results_store import migrate

USER = "ann"
#: With every character that confuses a reader of URLs.
BROKER_PASSWORD = "Brk9/pass#w?o:r@d%z"
DATABASE_PASSWORD = "Db7/pass#w?o:r@d%z"

#: What may never be seen anywhere: the passwords as they are and as URLs write them, and their parts.
SECRETS = (
    BROKER_PASSWORD,
    DATABASE_PASSWORD,
    quote(BROKER_PASSWORD, safe=""),
    quote(DATABASE_PASSWORD, safe=""),
    "Brk9",
    "Db7",
)


@dataclass(frozen=True)
class Guarded:
    """A broker and a store that only TLS and a password open."""

    broker_url: str
    database_url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that uses them."""
        return {
            **os.environ,
            "HEADRACE_BROKER_URL": self.broker_url,
            "HEADRACE_DATABASE_URL": self.database_url,
        }


def _guard_valkey(server: Valkey) -> None:
    with redis.Redis(host=server.host, port=server.port) as admin:
        admin.acl_setuser(
            USER, enabled=True, passwords=["+" + BROKER_PASSWORD], keys=["*"], channels=["*"], commands=["+@all"]
        )
        admin.acl_setuser("default", enabled=False)


def _guard_postgres(server: Postgres, database: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE USER {} PASSWORD {}").format(sql.Identifier(USER), sql.Literal(DATABASE_PASSWORD))
        )
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(USER)))
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"local all {server.user} trust\nlocal all all scram-sha-256\n")
        admin.execute("SELECT pg_reload_conf()")


def _unix(path: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    return end


@pytest.fixture(scope="session")
def guarded(server_folder: Path) -> Iterator[Guarded]:
    with Valkey(server_folder / "guarded-valkey") as valkey, Postgres(server_folder / "guarded-postgres") as postgres:
        _guard_valkey(valkey)
        _guard_postgres(postgres, "scores")
        folder = psycopg.conninfo.conninfo_to_dict(postgres.url)["host"]
        broker = TlsFront(lambda: socket.create_connection((valkey.host, valkey.port)))
        store = TlsFront(lambda: _unix(f"{folder}/.s.PGSQL.5432"), postgres=True)
        authority = quote(str(AUTHORITY))
        database_url = (
            f"postgresql://{USER}:{quote(DATABASE_PASSWORD, safe='')}@localhost:{store.port}/scores"
            f"?sslmode=verify-full&sslrootcert={authority}"
        )
        broker_url = (
            f"rediss://{USER}:{quote(BROKER_PASSWORD, safe='')}@localhost:{broker.port}/0"
            f"?ssl_cert_reqs=required&ssl_ca_certs={authority}"
        )
        migrate(database_url)
        yield Guarded(broker_url, database_url)
        broker.close()
        store.close()


@pytest.fixture
def migrated_url(database_url: str) -> str:
    """The URL of an empty store that is this test's own."""
    migrate(database_url)
    return database_url


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def headrace(tmp_path: Path) -> Command:
    """Run the `headrace` command in a folder of its own; gives exit code and output."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace.cli", *words],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
