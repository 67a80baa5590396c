"""A full disk under Postgres, without a privilege and without filling one.

A limit on the size of files (RLIMIT_FSIZE) is set on the running server. What Postgres does then is what it does on a
disk without room, where it was compared: a table that must grow fails its statement (SQLSTATE XX000 for EFBIG, where a
disk gives 53100 for ENOSPC), and WAL that can't be written ends the whole server, crash recovery included. Linux only.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import psycopg

from headrace.cli.stack.servers import Postgres
from headrace.contracts.ids import uuid7

#: The model of rows that only make a table large.
FILLER: Final = "filler"

#: Below this size a limit would hit the WAL, whose files have it.
WAL_FILE_BYTES: Final = 16 << 20

#: No file of Postgres but its WAL need be larger than this, so with it nothing can be written for long.
NO_WAL_BYTES: Final = 4096

#: How soon a server that can't write its WAL ends.
END_S: Final = 60.0

#: Made of rows smaller than any other, lest these find room in the pages that those have filled.
_FILL: Final = """
    INSERT INTO predictions (id, finished_at, attempts, cached, state, model, version)
    SELECT (%s || substr(gen_random_uuid()::text, 15))::uuid, now(), 1, false, 'succeeded', %s, ''
    FROM generate_series(1, %s)
"""
_FILLER_ROWS: Final = 20_000

#: The first characters of a UUIDv7's text: its time, by which it belongs to the table of a day.
_TIME_CHARACTERS: Final = 14
_REST: Final = "0000-0000-000000000000"

_TABLE: Final = "SELECT pg_relation_size(tableoid) FROM predictions WHERE id >= %s AND model = %s LIMIT 1"

#: What Postgres logs for each statement that fails.
_REFUSAL: Final = b"could not extend file"


@contextmanager
def tables_full(postgres: Postgres, database_url: str) -> Iterator[Callable[[], int]]:
    """Let today's rows find no room; all else goes on. Gives a function that counts the statements that have failed."""
    size = _grow_table(database_url)
    refusals = count_in_log(postgres, _REFUSAL)
    with _limit(postgres, size):
        yield refusals


def count_in_log(postgres: Postgres, words: bytes) -> Callable[[], int]:
    """Return what counts how often Postgres has logged these words from now on."""
    log = postgres.child.log
    logged_bytes = log.stat().st_size

    def count() -> int:
        with log.open("rb") as file:
            file.seek(logged_bytes)
            return file.read().count(words)

    return count


def end_for_lack_of_wal(postgres: Postgres, database_url: str) -> None:
    """Let the server find no room for its WAL; returns when it has ended."""
    with _limit(postgres, NO_WAL_BYTES):
        # This record or another one ends the server; whose it is decides what is said here.
        with suppress(psycopg.Error), psycopg.connect(database_url) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'chaos', 'a record')")
        if not postgres.child.exited.wait(END_S):
            raise AssertionError("Postgres goes on without WAL")


def _grow_table(database_url: str) -> int:
    """Make the table of today's rows as large as a file of WAL, if it isn't; give its size in bytes."""
    day = str(uuid7(time.time_ns(), bytes(8)))[:_TIME_CHARACTERS]
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            connection.execute(_FILL, [day, FILLER, _FILLER_ROWS])
            ((size_bytes,),) = connection.execute(_TABLE, [day + _REST, FILLER])
            if size_bytes >= WAL_FILE_BYTES:
                return int(size_bytes)


@contextmanager
def _limit(postgres: Postgres, file_bytes: int) -> Iterator[None]:
    """Let no file of the server grow beyond a size; processes that it starts meanwhile have the limit too."""
    unlimited, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    _set_limit(postgres, str(file_bytes))
    try:
        yield
    finally:
        _set_limit(postgres, "unlimited" if unlimited == resource.RLIM_INFINITY else str(unlimited))


def _set_limit(postgres: Postgres, file_bytes: str) -> None:
    if not postgres.running:
        return
    # The server first: what it starts later has its limit, what it started before is among its children.
    _set_limit_of(postgres.pid, file_bytes)
    for child in psutil.Process(postgres.pid).children(recursive=True):
        _set_limit_of(child.pid, file_bytes)


def _set_limit_of(pid: int, file_bytes: str) -> None:
    try:
        owner = Path(f"/proc/{pid}").stat()
    except FileNotFoundError:
        return
    # As its owner: root in a container may become another user, but not set another's limits.
    account = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    command = ["prlimit", f"--pid={pid}", f"--fsize={file_bytes}:"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **account)  # type: ignore[call-overload]
    if done.returncode and psutil.pid_exists(pid):
        raise RuntimeError(f"prlimit of {pid}: {done.stderr.strip()}")
