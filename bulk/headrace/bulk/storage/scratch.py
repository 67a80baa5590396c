"""The folder of parts that are not published yet."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from headrace.bulk.storage.local.errors import translated
from headrace.bulk.storage.local.writing import locked_folder
from headrace.contracts.errors import ConfigurationError

#: What the names of folders of one process begin with.
_OWN: Final = "process-"


def scratch_folder(setting: Path | None) -> Path:
    """Return HEADRACE_BULK_SCRATCH, or a folder of this user in the temporary folder, and create it.

    Raises ConfigurationError for a folder that others may write to: they could change what is published.
    """
    folder = setting or Path(tempfile.gettempdir()) / f"headrace-bulk-{os.getuid()}"
    with translated(str(folder)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    if setting is None and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022):
        raise ConfigurationError(
            f"{folder} belongs to another user, or others may write to it; set HEADRACE_BULK_SCRATCH"
        )
    return folder


class OwnScratch:
    """A scratch folder of this process alone, until it ends; the next process removes it, and what was left in it."""

    def __init__(self, setting: Path | None) -> None:
        """setting: HEADRACE_BULK_SCRATCH. Raises ConfigurationError, and StorageUnavailable when the disk is full."""
        root = scratch_folder(setting)
        with translated(str(root)), locked_folder(root):  # nobody takes a folder for dead that is not locked yet
            for path in root.glob(f"{_OWN}*"):
                _remove_if_dead(path)
            self.folder: Final = Path(tempfile.mkdtemp(prefix=_OWN, dir=root))
            self._lock = _locked(self.folder)


def _remove_if_dead(path: Path) -> None:
    """Remove a folder that no process has locked: locks end with their processes."""
    try:
        lock = _locked(path)
    except OSError:
        return
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a folder, and return the descriptor that keeps it locked. Raises OSError when somebody else has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
