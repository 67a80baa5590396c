"""The lock on a home: one local stack at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from headrace.cli.terminal.errors import StackError

_FILE: Final = "lock"


class HomeLock:
    """An exclusive lock that the kernel releases when its holder ends, however it ends."""

    def __init__(self, home: Path) -> None:
        """home: folder of the local stack; made by `acquire`."""
        self.home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises StackError naming the process that holds it."""
        self.home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.home / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StackError(
                f"a local stack already runs in {self.home} (pid {holder}); use it as it is, "
                "stop it with Ctrl-C in its terminal, or give another HEADRACE_HOME"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
