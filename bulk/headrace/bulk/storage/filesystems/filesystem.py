"""Objects of one file system that fsspec knows."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from headrace.bulk.storage.base import AlreadyExists, BadLocation, Chosen, InputMissing, ObjectInfo
from headrace.bulk.storage.filesystems.errors import bounded
from headrace.bulk.storage.filesystems.tree import FolderTree, info_of
from headrace.bulk.storage.ordering import Visible, walk
from headrace.bulk.storage.ranged import RangedFile
from headrace.bulk.storage.reading import InputReader, input_changed
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.uris import relative, split
from headrace.contracts.errors import quoted

T = TypeVar("T")

PAGE: Final = 1000

#: The slowest upload that counts as alive, in bytes a second.
_SLOWEST: Final = 1 << 20

#: Of all that is written by this process: drivers have no conditional writes, so that a name is looked up first.
_WRITING: Final = threading.Lock()


class FilesystemStorage:
    """One file system. What is written gets its name when it is whole.

    Weaker than the other storages: two processes that publish one name in the same moment may replace one another's
    object. Parts have the same rows then, for the ledger lets one worker complete a shard.
    """

    def __init__(self, uri: str, roots: Roots, timeout_s: float) -> None:
        """uri: any of the file system. Raises BadLocation when its driver is not installed."""
        self._roots = roots
        self._timeout_s = timeout_s
        self._driver = _driver(uri)
        self._fs = self._call(uri, lambda: self._driver(**self._driver._get_kwargs_from_urls(uri)))

    def pages(self, uri: str, after: str = "", *, chosen: Chosen | None = None) -> Iterator[list[ObjectInfo]]:
        """List the objects below a folder in order, page by page."""
        top = self._path(uri).rstrip("/")

        def ls(inside: str) -> list[Mapping[str, Any]]:
            self._fs.invalidate_cache()
            return list(self._call(uri, lambda: self._fs.ls(f"{top}/{inside}".rstrip("/") or "/", detail=True)))

        objects = walk(FolderTree(uri, ls, chosen or Visible()), relative(uri, after))
        while page := list(itertools.islice(objects, PAGE)):
            yield page

    def stat(self, uri: str) -> ObjectInfo:
        """Return what is known of an object. Raises InputMissing, also for a folder."""
        path = self._path(uri)
        self._fs.invalidate_cache()
        entry = self._call(uri, lambda: self._fs.info(path))
        if entry["type"] == "directory":
            raise InputMissing(f"{quoted(uri)} is a folder, not a file")
        return info_of(uri, entry)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open an object for reading at random; before and after each read it is checked to be the same."""
        info = self.stat(uri)
        if etag and info.etag != etag:
            raise input_changed(uri)
        path = self._path(uri)
        file = self._call(uri, lambda: self._fs.open(path, "rb", cache_type="none"))

        def read(start: int, stop: int) -> bytes:
            file.seek(start)
            return bytes(file.read(stop - start))

        def fetch(start: int, stop: int) -> memoryview:
            content = self._call(uri, lambda: read(start, stop))
            if self.stat(uri).etag != info.etag or not content:
                raise input_changed(uri)
            return memoryview(content)

        return InputReader(RangedFile(uri, info.size, fetch, file.close))

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        """Copy a scratch file to a hidden name and rename that, unless something exists there; the file is gone."""
        size = local.stat().st_size
        info = self._create(uri, lambda path: self._fs.put_file(str(local), path), size)
        local.unlink(missing_ok=True)
        return info

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        """Write a small object unless something exists there: then AlreadyExists."""
        return self._create(uri, lambda path: self._fs.pipe_file(path, content), len(content))

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        """Replace an object if it still has this etag."""
        path = self._path(uri)
        with _WRITING:
            if self.stat(uri).etag != etag:
                raise AlreadyExists(f"{quoted(uri)} was replaced by somebody else")
            self._call(uri, lambda: self._fs.pipe_file(path, content))
        return self.stat(uri)

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens when there is none."""
        path = self._path(uri)
        try:
            self._call(uri, lambda: self._fs.rm_file(path))
        except InputMissing:
            return

    def _create(self, uri: str, write: Callable[[str], object], size: int) -> ObjectInfo:
        path = self._path(uri)
        folder = path.rpartition("/")[0]
        hidden = f"{folder}/.{secrets.token_hex(8)}.scratch"

        def create() -> None:
            if folder.strip("/"):
                self._fs.makedirs(folder, exist_ok=True)
            if self._fs.exists(path):
                raise FileExistsError(path)
            write(hidden)
            self._fs.mv(hidden, path)

        with _WRITING:
            try:
                self._call(uri, create, self._timeout_s + size / _SLOWEST)
            except BaseException:
                self._forget(hidden)
                raise
        return self.stat(uri)

    def _forget(self, path: str) -> None:
        """Remove what was written in part, if the file system still answers."""

        def remove() -> None:
            if self._fs.exists(path):
                self._fs.rm_file(path)

        try:
            self._call(path, remove)
        except Exception:  # noqa: BLE001
            return

    def _path(self, uri: str) -> str:
        return str(self._driver._strip_protocol(self._roots.check(uri)))

    def _call(self, uri: str, call: Callable[[], T], timeout_s: float = 0.0) -> T:
        return bounded(uri, call, timeout_s or self._timeout_s)


def _driver(uri: str) -> Any:
    """Return the class of a file system."""
    import fsspec  # type: ignore[import-untyped]

    scheme = split(uri).scheme
    if "::" in uri:
        raise BadLocation(f"{quoted(uri)} names a file system in another; give the outer one alone")
    try:
        return fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise BadLocation(
            f"{scheme}:// is no storage that headrace knows; use a path, s3://, gs://, az:// or a scheme of fsspec"
        ) from None
    except ImportError as exc:
        raise BadLocation(f"{scheme}:// needs a package that the workers don't have: {exc}") from None
