"""One real Valkey and one real Postgres, shared by both sides, as the local stack starts them.

Both are durable as in production: Valkey writes an append-only file synced every second and evicts nothing,
Postgres syncs each commit.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

#: Databases of Valkey: each side works in its own; copies of preloaded queues lie in others.
CELERY_BROKER, CELERY_RESULTS, CELERY_TEMPLATE, HEADRACE_BROKER, HEADRACE_TEMPLATE = 1, 2, 3, 4, 5

#: How often Valkey is asked whether its file is written; nothing is measured meanwhile.
SETTLE_POLL_S = 0.01


@dataclass(frozen=True)
class Servers:
    """Where the servers listen, and their process ids."""

    valkey_address: str
    database_url: str
    valkey_pid: int
    postgres_pid: int
    folder: Path

    def valkey_database(self, number: int) -> str:
        """Give the URL of one Valkey database."""
        return f"redis://{self.valkey_address}/{number}"

    def settle(self) -> None:
        """Have both servers put on disk all that they owe, so that no run pays for the writes of the one before."""
        with psycopg.connect(self.database_url, autocommit=True) as postgres:
            postgres.execute("CHECKPOINT")
        with redis.Redis.from_url(self.valkey_database(0)) as valkey:
            _wait_for_rewrite(valkey)
            valkey.bgrewriteaof()
            _wait_for_rewrite(valkey)


def _wait_for_rewrite(valkey: redis.Redis) -> None:
    """Wait until no rewrite of the append-only file runs or is due."""
    while True:
        about = valkey.info("persistence")
        if not about["aof_rewrite_in_progress"] and not about["aof_rewrite_scheduled"]:
            return
        time.sleep(SETTLE_POLL_S)


@contextlib.contextmanager
def started() -> Iterator[Servers]:
    """Start both servers in a temporary folder; stop them at the end."""
    from headrace.cli.stack.servers import Postgres, Valkey

    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        with Valkey(folder / "valkey") as valkey, Postgres(folder / "postgres") as postgres:
            postgres.create_database("bench")
            yield Servers(
                valkey_address=f"{valkey.host}:{valkey.port}",
                database_url=postgres.url_of("bench"),
                valkey_pid=valkey.pid,
                postgres_pid=postgres.pid,
                folder=folder,
            )
