"""A local folder tree, for listing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from headrace.bulk.storage.base import Chosen, ObjectInfo
from headrace.bulk.storage.reading import info_of
from headrace.bulk.storage.roots import Roots


class LocalTree:
    """Links are followed as far as the roots go, and not to a folder that led to them."""

    def __init__(self, uri: str, chosen: Chosen, roots: Roots) -> None:
        """uri: of the top, under which the files are named. Raises RootRefused."""
        self._uri = uri.rstrip("/") + "/"
        self._top = roots.check(uri).rstrip("/") + "/"
        self._chosen = chosen
        self._roots = roots

    def names(self, inside: str) -> Iterator[str]:
        """Yield the chosen names in a folder. Raises RootRefused for a link that leads out of the roots."""
        with os.scandir(self._top + inside) as entries:
            for entry in entries:
                relative = inside + entry.name
                is_folder = entry.is_dir()
                if not (self._chosen.folder(relative) if is_folder else self._chosen.file(relative)):
                    continue
                if entry.is_symlink():
                    real = self._roots.check(entry.path)
                    if is_folder and real in self._above(inside):
                        continue
                yield entry.name + "/" if is_folder else entry.name

    def info(self, name: str) -> ObjectInfo | None:
        """Return what is known of a file; None if it was deleted meanwhile or is no regular file."""
        try:
            found = Path(self._top + name).stat()
        except FileNotFoundError:
            return None
        return info_of(self._uri + name, found) if stat.S_ISREG(found.st_mode) else None

    def _above(self, inside: str) -> set[str]:
        """Return the real paths of a folder and of those above it, up to the top."""
        parts = inside.split("/")[:-1]
        return {os.path.realpath(self._top + "/".join(parts[:depth])) for depth in range(len(parts) + 1)}
