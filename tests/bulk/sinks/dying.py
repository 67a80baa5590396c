"""A storage whose user dies after a number of changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.bulk.storage.base import Chosen, ObjectInfo, Storage


class Dying:
    """Another storage, up to the change before which its user dies."""

    def __init__(self, storage: Storage, changes: int) -> None:
        self._storage = storage
        self._left = changes

    def _change(self) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1

    def pages(self, uri: str, after: str = "", *, chosen: Chosen | None = None) -> Iterator[list[ObjectInfo]]:
        return self._storage.pages(uri, after, chosen=chosen)

    def stat(self, uri: str) -> ObjectInfo:
        return self._storage.stat(uri)

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        return self._storage.open(uri, etag=etag)

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        self._change()
        return self._storage.publish(local, uri)

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        self._change()
        return self._storage.put(uri, content)

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        self._change()
        return self._storage.replace(uri, content, etag)

    def delete(self, uri: str) -> None:
        self._change()
        self._storage.delete(uri)
