"""A storage in a local folder, as small as the contract allows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from headrace.bulk.storage.base import AlreadyExists, InputMissing, ObjectInfo


class Folder:
    """Files by absolute path; the etag is of the content."""

    def pages(self, uri: str, after: str = "") -> Iterator[list[ObjectInfo]]:
        root = Path(uri)
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        visible = [name for name in names if not any(part[0] in "._" for part in name.split("/"))]
        found = [self.stat(f"{uri}/{name}") for name in visible if f"{uri}/{name}" > after]
        yield from (found[at : at + 3] for at in range(0, len(found), 3))

    def stat(self, uri: str) -> ObjectInfo:
        if not Path(uri).is_file():
            raise InputMissing(f"no {uri}")
        content = Path(uri).read_bytes()
        return ObjectInfo(uri=uri, size=len(content), etag=hashlib.sha256(content).hexdigest())

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        self.stat(uri)
        return Path(uri).open("rb")

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(local, uri)
        except FileExistsError:
            raise AlreadyExists from None
        return self.stat(uri)

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            with Path(uri).open("xb") as file:
                file.write(content)
        except FileExistsError:
            raise AlreadyExists from None
        return self.stat(uri)

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        if self.stat(uri).etag != etag:
            raise AlreadyExists
        Path(uri).write_bytes(content)
        return self.stat(uri)

    def delete(self, uri: str) -> None:
        Path(uri).unlink(missing_ok=True)
