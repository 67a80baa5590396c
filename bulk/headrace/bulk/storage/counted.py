"""A storage that counts what is read through it."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

from headrace.bulk.storage.base import Storage


class CountedStorage:
    """A storage seen through a counter of the bytes that are read; everything else is as it is there."""

    def __init__(self, storage: Storage) -> None:
        """Nothing was read yet."""
        self._storage: Final = storage
        self._opened: list[Any] = []
        self._closed_bytes = 0

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the storage."""
        return getattr(self._storage, name)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open an object for reading; see `Storage.open`."""
        file = self._storage.open(uri, etag=etag)
        self._opened = [each for each in self._opened if not self._note_closed(each)]
        self._opened.append(file)
        return file

    @property
    def bytes_read(self) -> int:
        """How many bytes were read from all files."""
        return self._closed_bytes + sum(int(each.bytes_read) for each in self._opened)

    def _note_closed(self, file: Any) -> bool:
        if file.closed:
            self._closed_bytes += file.bytes_read
        return bool(file.closed)
