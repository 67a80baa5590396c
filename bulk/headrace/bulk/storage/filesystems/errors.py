"""Errors of the file systems that fsspec knows in headrace's words, and a bound on their time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from headrace.bulk.storage.base import AccessDenied, AlreadyExists, BadLocation, InputMissing, StorageUnavailable
from headrace.contracts.errors import HeadraceError, quoted

T = TypeVar("T")


def bounded(uri: str, call: Callable[[], T], timeout_s: float) -> T:
    """Return what a call returns, with its errors translated. Raises StorageUnavailable if it takes too long.

    Few drivers bound their time. Each call runs in a thread, which is left behind if it never ends.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as exc:  # noqa: BLE001 - it is raised in the thread that waits
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True, name="bulk-filesystem")
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise _error(uri, errors[0]) from errors[0]
    if not results:
        raise StorageUnavailable(f"{quoted(uri)}: no answer in {timeout_s:g} s; the job waits and tries again")
    return results[0]


def _error(uri: str, exc: BaseException) -> BaseException:
    """Return the error with its cause and remedy; the text of an unknown one is not repeated, it may have secrets."""
    if isinstance(exc, HeadraceError) or not isinstance(exc, Exception):
        return exc
    status = getattr(exc, "status", 0)
    where = quoted(uri)
    if isinstance(exc, FileExistsError):
        return AlreadyExists(f"{where} exists already, and nothing is ever overwritten")
    if isinstance(exc, (FileNotFoundError, NotADirectoryError)) or status == 404:
        return InputMissing(f"there is no {where}; check the location, as the workers see it")
    if isinstance(exc, PermissionError) or status in (401, 403) or "Auth" in type(exc).__name__:
        return AccessDenied(f"{where}: access denied ({type(exc).__name__}); give the workers credentials that may")
    if isinstance(exc, (NotImplementedError, ValueError, TypeError)):
        return BadLocation(f"{where}: its driver can't do that ({type(exc).__name__}); choose another location")
    return StorageUnavailable(f"{where}: {type(exc).__name__}; the job waits and tries again")
