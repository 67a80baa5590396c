"""The scratch file of a part, which gets its name when it is whole; and full disks."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from headrace.bulk.storage.base import AccessDenied, StorageUnavailable
from headrace.contracts.errors import InvalidRequest

#: What the name of a file ends with until it is whole.
UNFINISHED: Final = ".unfinished"

#: No space on the disk, none in the quota, or the file is larger than its process may write.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ScratchPart(ABC):
    """A part writer; formats supply how rows are written and what the end of the file is."""

    def __init__(self, path: Path, schema: pa.Schema, metadata: Mapping[str, str] = {}) -> None:
        """path: where the whole file will lie; its folder exists."""
        self._metadata = dict(metadata)
        self._path = path
        self._unfinished = path.with_name(path.name + UNFINISHED)
        self._schema = schema
        self._rows = 0
        self._size_bytes: int | None = None
        with self._removed_on_failure():
            self._open(self._unfinished)

    @property
    def rows(self) -> int:
        """Return how many rows were added."""
        return self._rows

    @property
    def size_bytes(self) -> int:
        """Return an upper estimate of the size of the file so far, its size once it is closed."""
        return self._size() if self._size_bytes is None else self._size_bytes

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Raises StorageUnavailable when the disk is full."""
        if not batch.schema.equals(self._schema):
            raise InvalidRequest(f"columns {batch.schema.names} do not fit a part of {self._schema.names}")
        with self._removed_on_failure():
            self._write(batch)
        self._rows += batch.num_rows

    def close(self, metadata: Mapping[str, str] = {}) -> Path:
        """Finish the file and return it; a file that was not closed is none."""
        if self._size_bytes is None:
            with self._removed_on_failure():
                self._metadata.update(metadata)
                self._finish()
                self._size_bytes = self._unfinished.stat().st_size
                self._unfinished.replace(self._path)
        return self._path

    def abort(self) -> None:
        """Remove what was written."""
        try:
            self._discard()
        except OSError:
            pass  # a full disk can't take what was still buffered, which nobody wants
        finally:
            self._unfinished.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _removed_on_failure(self) -> Iterator[None]:
        try:
            with full_disk_translated(self._path.parent):
                yield
        except BaseException:
            self.abort()
            raise

    @abstractmethod
    def _open(self, path: Path) -> None: ...

    @abstractmethod
    def _write(self, batch: pa.RecordBatch) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

    @abstractmethod
    def _size(self) -> int: ...


@contextmanager
def full_disk_translated(folder: Path) -> Iterator[None]:
    """Raise StorageUnavailable for a full disk, AccessDenied for a read-only one, while scratch files are written."""
    try:
        yield
    except OSError as error:
        raise _translated(error, folder) from error


def _translated(error: OSError, folder: Path) -> Exception:
    if error.errno in FULL:
        return StorageUnavailable(f"the scratch folder {folder} is full; free space, or set TMPDIR to a larger disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"no permission to write into the scratch folder {folder}; set TMPDIR to another")
    return error
