"""Files that are written whole or not at all, so that a crash never leaves half of one under its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends; if it raises, `path` stays as it was.

    The bytes are on disk before they get the name. One process at a time may write a path: they lie beside it, under
    its name and `.partial`, until then.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)
