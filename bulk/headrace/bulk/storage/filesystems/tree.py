"""A folder tree of a file system of fsspec, for listing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from headrace.bulk.storage.base import Chosen, ObjectInfo

#: Where drivers say when an object was written, and what changes with it.
_TIMES: Final = ("mtime", "modified", "last_modified", "LastModified", "created", "modificationTime")
_ETAGS: Final = ("ETag", "etag", "e_tag", "md5", "md5Hash", "checksum", "blob_id")

#: Seconds reach this in the year 5138.
_MILLISECONDS: Final = 1e11


class FolderTree:
    """One folder at a time, with what the driver says of its objects."""

    def __init__(self, uri: str, ls: Callable[[str], list[Mapping[str, Any]]], chosen: Chosen) -> None:
        """ls: lists a folder by its name relative to the top, in detail."""
        self._base = uri.rstrip("/") + "/"
        self._ls = ls
        self._chosen = chosen
        self._found: dict[str, ObjectInfo] = {}

    def names(self, inside: str) -> Iterator[str]:
        """Yield the chosen names in a folder."""
        for entry in self._ls(inside):
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            is_folder = entry["type"] == "directory"
            if name and (self._chosen.folder(inside + name) if is_folder else self._chosen.file(inside + name)):
                if not is_folder:
                    self._found[inside + name] = info_of(self._base + inside + name, entry)
                yield name + "/" if is_folder else name

    def info(self, name: str) -> ObjectInfo | None:
        """Return what was known of an object when its folder was listed."""
        return self._found.pop(name, None)


def info_of(uri: str, entry: Mapping[str, Any]) -> ObjectInfo:
    """Return what a driver says of an object."""
    size = int(entry.get("size") or 0)
    mtime_ns = next((_nanoseconds(entry[key]) for key in _TIMES if entry.get(key)), 0)
    etag = next((str(entry[key]) for key in _ETAGS if entry.get(key)), f"~{size:x}-{mtime_ns:x}")
    return ObjectInfo(uri=uri, size=size, etag=etag, mtime_ns=mtime_ns)


def _nanoseconds(time: object) -> int:
    """Return a time, to the microsecond: some drivers round the same time differently in a list and for one object."""
    if isinstance(time, dt.datetime):
        time = time.timestamp()
    if not isinstance(time, (int, float)):
        return 0
    # Hadoop counts milliseconds.
    return round(time * 1000 if time > _MILLISECONDS else time * 1_000_000) * 1000
