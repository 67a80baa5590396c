"""The least of a storage that sources need: they only open files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.bulk.storage.base import InputMissing, ObjectInfo


class LocalFiles:
    """Files of this machine, opened for reading; nothing is written here. bytes_read: of all files so far."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        self.opened += 1
        try:
            return Path(uri).open("rb")
        except FileNotFoundError as exc:
            raise InputMissing(f"{uri} does not exist") from exc

    def pages(self, uri: str, after: str = "") -> Iterator[list[ObjectInfo]]:
        raise NotImplementedError

    def stat(self, uri: str) -> ObjectInfo:
        raise NotImplementedError

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        raise NotImplementedError

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        raise NotImplementedError

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        raise NotImplementedError

    def delete(self, uri: str) -> None:
        raise NotImplementedError
