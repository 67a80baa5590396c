"""A lock on a folder, so that one process at a time works in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.contracts.errors import HeadraceError

_FILE: Final = "lock"


@contextmanager
def single_instance(folder: Path, error: type[HeadraceError], *, running: str, advice: str) -> Iterator[None]:
    """Hold the lock on a folder, made if missing, while the block runs; the kernel releases it however we end.

    Raises `error` when the folder can't be written, or when another process holds the lock: "RUNNING in FOLDER
    (pid N), ADVICE".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise error(f"{folder} can't be written: {exc.strerror}; give another HEADRACE_HOME") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise error(f"{running} in {folder} (pid {holder}), {advice}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            # A later process that finds the lock taken must not name us.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
