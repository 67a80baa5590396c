"""Counting: how many bytes a shard had from the storage, whatever the formats of its files."""

from __future__ import annotations

from threading import Lock
from typing import BinaryIO

from headrace.bulk.sources.base import Files


class CountedFiles:
    """The files that one shard opens, with what they read from a storage. For several threads."""

    def __init__(self, storage: Files) -> None:
        """storage: that opens the files."""
        self._storage = storage
        self._lock = Lock()
        self._open: list[BinaryIO] = []
        self._closed_bytes = 0

    @property
    def bytes_read(self) -> int:
        """Bytes that the storage was asked for so far."""
        with self._lock:
            return self._closed_bytes + sum(map(_bytes_of, self._open))

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open a file of the storage."""
        opened = self._storage.open(uri, etag=etag)
        with self._lock:
            still = [file for file in self._open if not file.closed]
            self._closed_bytes += sum(_bytes_of(file) for file in self._open if file.closed)
            self._open = [*still, opened]
        return opened


def _bytes_of(file: BinaryIO) -> int:
    return int(getattr(file, "bytes_read", 0))
