"""The contract of a storage: one folder tree or bucket, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from headrace.contracts.errors import HeadraceError, InvalidRequest


class InputMissing(HeadraceError):
    """The input does not exist; check the path, and that it is one that the workers see."""


class AccessDenied(HeadraceError):
    """The storage refused access; check the permissions or credentials of the workers."""


class StorageUnavailable(HeadraceError):
    """The storage can't be reached, or is full; the job waits and tries again."""

    retriable = True


class AlreadyExists(HeadraceError):
    """An object of this name exists already, and none is ever overwritten."""


class RootRefused(HeadraceError):
    """The location is not below HEADRACE_BULK_ROOTS of the workers; add it there or choose another location."""


class BadLocation(InvalidRequest):
    """The location can't be used; give an absolute path or a URI without credentials."""


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An object as its storage knows it. etag: changes with the content."""

    uri: str
    size: int
    etag: str
    mtime_ns: int = 0


class Chosen(Protocol):
    """A choice among the names below a folder, relative to it and without a slash at the end."""

    def file(self, name: str) -> bool:
        """Return whether this object is listed."""
        ...

    def folder(self, name: str) -> bool:
        """Return whether there may be chosen objects in this folder."""
        ...

    def ended(self, name: str) -> bool:
        """Return whether no object is chosen from this name on, in the order of any storage."""
        ...


class Storage(Protocol):
    """One kind of storage. URIs are whole (`s3://bucket/key`); local ones are absolute paths.

    Methods raise the errors of this module. A silent or broken connection is noticed within
    HEADRACE_BULK_TIMEOUT_S; transient errors are retried inside.
    """

    def pages(self, uri: str, after: str = "", *, chosen: Chosen | None = None) -> Iterator[list[ObjectInfo]]:
        """List the objects below a folder in the order of their URIs (as UTF-8), page by page, those after a URI only.

        Hidden ones (a part of the name below the folder begins with `.` or `_`) are left out. chosen: another choice.
        """
        ...

    def stat(self, uri: str) -> ObjectInfo:
        """Return what is known of one object."""
        ...

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open an object for reading at random (seekable). etag: raises InputChanged when it has another one by now."""
        ...

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        """Copy or link a local file to a URI, whole and durably, unless something exists there: then AlreadyExists."""
        ...

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        """Write a small object unless something exists there: then AlreadyExists."""
        ...

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        """Replace an object if it still has this etag; else AlreadyExists."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...


class InputChanged(HeadraceError):
    """An input file is another one than when the job was planned; run the command again with --restart."""
