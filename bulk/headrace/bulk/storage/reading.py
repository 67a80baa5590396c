"""Objects opened for reading at random, which count the bytes that the storage was asked for."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import Final

from headrace.bulk.storage.base import InputChanged, ObjectInfo
from headrace.contracts.errors import quoted

#: Small reads, such as those of lines, are served from a buffer of this size.
BUFFER_BYTES: Final = 128 << 10


class ReadAt(io.RawIOBase):
    """An object of a known size that is read at positions. For one thread."""

    def __init__(self, uri: str, size: int) -> None:
        """size: what there is to read, in bytes."""
        super().__init__()
        self.name = uri
        self.size = size
        self.limit = size
        self.bytes_read = 0
        self._position = 0

    @abstractmethod
    def read_at(self, position: int, view: memoryview) -> int:
        """Fill some of a view with what begins at a position before the end; return how much. Adds to `bytes_read`."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position and return it."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError("negative seek position")
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read what comes next into a buffer."""
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._position)]
        count = self.read_at(self._position, view) if view else 0
        self._position += count
        return count


class LocalFile(ReadAt):
    """A local file that raises InputChanged when it is changed while it is read."""

    def __init__(self, uri: str, descriptor: int, etag: str) -> None:
        """descriptor: closed with the file, and when this raises."""
        self._descriptor = descriptor
        found = info_of(uri, os.fstat(descriptor))
        super().__init__(uri, found.size)
        self._etag = etag or found.etag
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def read_at(self, position: int, view: memoryview) -> int:
        """Read from the file, and check that it is still the same."""
        count = os.preadv(self._descriptor, [view], position)
        self._check()
        self.bytes_read += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _check(self) -> None:
        found = info_of(self.name, os.fstat(self._descriptor)).etag
        if found != self._etag:
            raise input_changed(self.name)


class InputReader(io.BufferedReader):
    """A buffered reader of one object, which counts."""

    def __init__(self, source: ReadAt) -> None:
        """source: closed with the reader."""
        super().__init__(source, BUFFER_BYTES)
        self._source = source

    def limit(self, stop: int) -> None:
        """Read little ahead beyond a position: that of the end of a slice, whose next reader reads the rest."""
        self._source.limit = stop

    @property
    def bytes_read(self) -> int:
        """Bytes that the storage was asked for so far."""
        return self._source.bytes_read


def input_changed(uri: str) -> InputChanged:
    """Return the error for an object that is another one than before."""
    return InputChanged(
        f"{quoted(uri)} was changed or replaced after the job was planned; run the command again with --restart"
    )


def info_of(path: str, found: os.stat_result) -> ObjectInfo:
    """Return what is known of a local file."""
    etag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return ObjectInfo(uri=path, size=found.st_size, etag=etag, mtime_ns=found.st_mtime_ns)
