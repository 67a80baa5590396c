"""Local files that appear under their names whole and durable, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

#: Errors of file systems that have no unnamed files.
_NO_UNNAMED: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}


def link(source: str | Path, target: Path, *, folder: int | None = None) -> None:
    """Add another name to a file, which must be free. folder: any, for a source that is a link to be followed.

    Raises FileExistsError, and OSError with EOPNOTSUPP where the file system has no hard links.
    """
    try:
        # With a folder given, Python calls linkat, which can follow the link that /proc has to an unnamed file.
        os.link(source, target, src_dir_fd=folder)
    except FileExistsError:
        # On a network disk, an answer that was lost makes the request be sent twice.
        if not os.path.samestat(Path(source).stat(), target.lstat()):
            raise
    except PermissionError as exc:
        if exc.errno != errno.EPERM:
            raise
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from exc


@contextmanager
def unpublished(target: Path) -> Iterator[BinaryIO]:
    """Yield a file that gets its name when it is whole and on disk; a crash leaves no trace of it.

    Where the file system has no unnamed files, a crash leaves a hidden one. Raises FileExistsError.
    """
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno not in _NO_UNNAMED:
            raise
        with _unpublished_hidden(target) as file:
            yield file
        return
    with os.fdopen(descriptor, "wb") as file, _opened(target.parent) as folder:
        yield file
        _sync(file)
        link(f"/proc/self/fd/{descriptor}", target, folder=folder)


@contextmanager
def _unpublished_hidden(target: Path) -> Iterator[BinaryIO]:
    hidden = _hidden(target)
    try:
        with hidden.open("xb") as file:
            yield file
            _sync(file)
        link(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)


def exchange(target: Path, content: bytes) -> None:
    """Replace the content of a file durably, in one step."""
    hidden = _hidden(target)
    try:
        with hidden.open("xb") as file:
            file.write(content)
            _sync(file)
        hidden.rename(target)
    finally:
        hidden.unlink(missing_ok=True)
    sync_folder(target.parent)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold a lock that others who replace files in this folder wait for."""
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def make_folders(folder: Path) -> None:
    """Create a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


def _hidden(target: Path) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}.scratch")


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
