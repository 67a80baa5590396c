"""The storage of a location, by its scheme."""

from __future__ import annotations

from typing import Final

from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.local.files import LocalStorage
from headrace.bulk.storage.objects.connecting import bucket_and_key, is_object_store
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.uris import canonical, split
from headrace.contracts.settings import Settings

#: HEADRACE_BULK_TIMEOUT_S where nobody says otherwise.
DEFAULT_TIMEOUT_S: Final = 30.0


class Storages:
    """The storages that a worker uses, opened once each, so that their connections are used again."""

    def __init__(self, roots: Roots, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """timeout_s: without an answer, after which a connection counts as dead."""
        self._roots = roots
        self._timeout_s = timeout_s
        self._open: dict[str, Storage] = {}

    def of(self, uri: str) -> Storage:
        """Return the storage that a location is in. Raises BadLocation; RootRefused if it is not below the roots."""
        found = self._roots.check(canonical(uri))
        key = _place(found)
        if key not in self._open:
            self._open[key] = open_storage(found, self._roots, self._timeout_s)
        return self._open[key]


def worker_storages(settings: Settings, *, local_stack: bool) -> Storages:
    """Return the storages that a worker may use by its settings. Raises ConfigurationError.

    local_stack: whether it belongs to the stack on its user's own machine, which needs no roots for local files.
    """
    return Storages(Roots.parse(settings.bulk_roots, local_stack=local_stack), settings.bulk_timeout_s)


def open_storage(uri: str, roots: Roots, timeout_s: float = DEFAULT_TIMEOUT_S) -> Storage:
    """Return the storage that a location is in; it serves all locations of the same scheme and host.

    Raises BadLocation, and RootRefused when the location is not below the roots.
    """
    found = roots.check(canonical(uri))
    location = split(found)
    if location.is_local:
        return LocalStorage(roots)
    if is_object_store(found):
        from headrace.bulk.storage.objects.bucket import BucketStorage

        return BucketStorage(bucket_and_key(found)[0], roots, timeout_s)
    from headrace.bulk.storage.filesystems.filesystem import FilesystemStorage

    return FilesystemStorage(found, roots, timeout_s)


def _place(uri: str) -> str:
    """Return what has one storage: a bucket, a server, or all local files."""
    if is_object_store(uri):
        return bucket_and_key(uri)[0]
    location = split(uri)
    return "" if location.is_local else f"{location.scheme}://{location.host}"
