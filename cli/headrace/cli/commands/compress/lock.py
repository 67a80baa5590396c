"""One compression at a time in a home: two would spoil each other's times, and share folders."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from headrace.compression.errors import CompressionError

_FILE: Final = "lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder while the block runs; the kernel releases it however the process ends.

    Raises CompressionError naming the process that holds it, or that the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise CompressionError(f"{folder} can't be written: {exc.strerror}; give another HEADRACE_HOME") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise CompressionError(
            f"another `headrace compress` works in {folder} (pid {holder}), and two would spoil each other's times; "
            "wait for it, or give another HEADRACE_HOME"
        ) from None
    finally:
        os.close(descriptor)
