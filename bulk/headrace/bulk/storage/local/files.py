"""Files on disks of this machine, or mounted there."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from headrace.bulk.storage.base import AlreadyExists, BadLocation, Chosen, InputMissing, ObjectInfo
from headrace.bulk.storage.local.errors import translated
from headrace.bulk.storage.local.tree import LocalTree
from headrace.bulk.storage.local.writing import (
    exchange,
    link,
    locked_folder,
    make_folders,
    sync_folder,
    unpublished,
)
from headrace.bulk.storage.ordering import Visible, walk
from headrace.bulk.storage.reading import InputReader, LocalFile, info_of
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.uris import canonical, relative
from headrace.contracts.errors import quoted

#: Objects that a page of a listing has; each needs a `stat`.
PAGE: Final = 1000

_COPY_BYTES: Final = 1 << 20


class LocalStorage:
    """Local files. What is published is linked to its name, which never replaces anything."""

    def __init__(self, roots: Roots) -> None:
        """roots: below which all locations lie."""
        self._roots = roots

    def pages(self, uri: str, after: str = "", *, chosen: Chosen | None = None) -> Iterator[list[ObjectInfo]]:
        """List the files below a folder in order, page by page. Raises InputMissing when there is no such folder."""
        with translated(uri):
            tree = LocalTree(uri, chosen or Visible(), self._roots)
            files = walk(tree, relative(uri, after))
            while page := list(itertools.islice(files, PAGE)):
                yield page

    def stat(self, uri: str) -> ObjectInfo:
        """Return what is known of a file. Raises InputMissing, also for a folder."""
        with translated(uri):
            found = self._path(uri).stat()
        if stat.S_ISDIR(found.st_mode):
            raise InputMissing(f"{quoted(uri)} is a folder, not a file")
        if not stat.S_ISREG(found.st_mode):
            raise BadLocation(f"{quoted(uri)} is no regular file; copy its content into one")
        return info_of(uri, found)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open a file for reading at random."""
        self.stat(uri)
        with translated(uri):
            return InputReader(LocalFile(uri, os.open(self._path(uri), os.O_RDONLY | os.O_CLOEXEC), etag))

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        """Link a scratch file to its name, or copy it to another device first; the scratch file is gone then."""
        with translated(uri), local.open("rb") as file:
            os.fsync(file.fileno())
            target = self._target(uri)
            try:
                link(local, target)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
                with unpublished(target) as copy:
                    shutil.copyfileobj(file, copy, _COPY_BYTES)
            sync_folder(target.parent)
            local.unlink(missing_ok=True)
            return info_of(uri, target.stat())

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        """Write a small file unless something exists there: then AlreadyExists."""
        with translated(uri):
            target = self._target(uri)
            with unpublished(target) as file:
                file.write(content)
            sync_folder(target.parent)
            return info_of(uri, target.stat())

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        """Replace a file if it still has this etag; others that replace in this folder wait."""
        with translated(uri):
            target = self._target(uri)
            with locked_folder(target.parent):
                if info_of(uri, target.stat()).etag != etag:
                    raise AlreadyExists(f"{quoted(uri)} was replaced by somebody else")
                exchange(target, content)
            return info_of(uri, target.stat())

    def delete(self, uri: str) -> None:
        """Remove a file; nothing happens when there is none."""
        with translated(uri), suppress(FileNotFoundError, NotADirectoryError):
            self._target(uri, make=False).unlink()

    def _path(self, uri: str) -> Path:
        return Path(self._roots.check(canonical(uri)))

    def _target(self, uri: str, *, make: bool = True) -> Path:
        """Return the path to write to, in a folder that exists. A link of that name is not followed."""
        path = Path(canonical(uri))
        folder = Path(self._roots.check(str(path.parent)))
        if make:
            make_folders(folder)
        return folder / path.name
