"""The folder of parts that are not published yet."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from headrace.bulk.storage.local.errors import translated
from headrace.contracts.errors import ConfigurationError


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
