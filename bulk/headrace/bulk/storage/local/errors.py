"""Errors of the operating system about files, in headrace's words."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headrace.bulk.storage.base import AccessDenied, AlreadyExists, BadLocation, InputMissing, StorageUnavailable
from headrace.contracts.errors import HeadraceError, quoted

#: Numbers of errors, what they are here, and what a person does about them.
_KINDS: Final[tuple[tuple[set[int], type[HeadraceError], str], ...]] = (
    ({errno.ENOENT, errno.ENOTDIR}, InputMissing, "give a path that the workers see, on a disk that they share"),
    ({errno.EACCES, errno.EPERM, errno.EROFS}, AccessDenied, "give the user of the workers access to it"),
    ({errno.ENOSPC, errno.EDQUOT}, StorageUnavailable, "free space there, and the job goes on"),
    ({errno.EOPNOTSUPP, errno.EMLINK}, BadLocation, "outputs need hard links; choose a folder of another file system"),
    ({errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR}, BadLocation, "choose another location"),
)


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Raise the errors of `storage.base` for those of the operating system."""
    try:
        yield
    except OSError as exc:
        raise _error(uri, exc) from exc


def _error(uri: str, exc: OSError) -> HeadraceError:
    """Return the error with its cause and remedy. Unknown ones pass, such as those of a network file system."""
    if exc.errno == errno.EEXIST:
        return AlreadyExists(f"{quoted(uri)} exists already, and nothing is ever overwritten")
    why = os.strerror(exc.errno) if exc.errno else str(exc)
    known = ((kind, remedy) for numbers, kind, remedy in _KINDS if exc.errno in numbers)
    kind, remedy = next(known, (StorageUnavailable, "the job waits and tries again"))
    return kind(f"{quoted(uri)} on {socket.gethostname()}: {why}; {remedy}")
