"""The files of a local folder tree in the order of their paths, one folder in memory at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from headrace.bulk.storage.base import BadLocation, Chosen, ObjectInfo
from headrace.bulk.storage.reading import info_of
from headrace.bulk.storage.roots import Roots
from headrace.contracts.errors import quoted


class Walk:
    """One walk below a folder. Links are followed as far as the roots go, and not into a folder that they lie in."""

    def __init__(self, top: Path, chosen: Chosen, roots: Roots) -> None:
        """top: a path whose links are resolved."""
        self._top = str(top)
        self._chosen = chosen
        self._roots = roots

    def files(self, folder: str, after: str) -> Iterator[ObjectInfo]:
        """Yield the files with paths after `after`, under the name `folder` of the top. Raises OSError."""
        yield from self._below(folder.rstrip("/") + "/", "", after, frozenset({os.path.realpath(self._top)}))

    def _below(self, base: str, inside: str, after: str, above: frozenset[str]) -> Iterator[ObjectInfo]:
        """inside: the folder relative to the top, with a slash at its end. above: the real folders that led here."""
        for name in self._names(inside):
            path = base + inside + name
            if not name.endswith("/"):
                if path > after and (info := self._file(path, inside + name)) is not None:
                    yield info
            # Paths in a folder have all the same start, so `after` lies among them, or before or after all of them.
            elif after.startswith(path) or path > after:
                real = os.path.realpath(f"{self._top}/{inside}{name}")
                if real not in above:
                    yield from self._below(base, inside + name, after, above | {real})

    def _names(self, inside: str) -> list[str]:
        """Return the chosen names in a folder in order, those of folders with a slash, as it counts for the order."""
        names = []
        with os.scandir(f"{self._top}/{inside}") as entries:
            for entry in entries:
                relative = inside + entry.name
                if entry.is_dir():
                    if self._chosen.folder(relative) and self._is_allowed(entry):
                        names.append(entry.name + "/")
                elif self._chosen.file(relative) and self._is_allowed(entry):
                    names.append(entry.name)
        try:
            return sorted(names, key=str.encode)
        except UnicodeEncodeError as exc:
            raise BadLocation(f"the file name {quoted(exc.object)} isn't UTF-8; rename the file") from None

    def _is_allowed(self, entry: os.DirEntry[str]) -> bool:
        """Raise RootRefused for a link that leads out of the roots; only links can."""
        if entry.is_symlink():
            self._roots.check(entry.path)
        return True

    def _file(self, path: str, inside: str) -> ObjectInfo | None:
        try:
            found = Path(f"{self._top}/{inside}").stat()
        except FileNotFoundError:
            # Deleted since the folder was listed, or a link to nothing.
            return None
        return info_of(path, found) if stat.S_ISREG(found.st_mode) else None
