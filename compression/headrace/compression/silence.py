"""Suppression of warnings, log records and output of third-party libraries."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Final


@contextmanager
def quieted(*loggers: str) -> Iterator[None]:
    """Suppress warnings, and records below ERROR of these loggers."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """Suppress printed output too, besides what `quieted` suppresses."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(redirect_stderr(StringIO()))
        stack.enter_context(quieted(*loggers))
        yield


class _Unlogged:
    """A counter of the threads that suppress logging; the last to leave restores the level that the first found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = logging.NOTSET

    def enter(self) -> None:
        with self._lock:
            if not self._count:
                self._before = logging.root.manager.disable
                logging.disable(logging.WARNING)
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                logging.disable(self._before)


_unlogged: Final = _Unlogged()


@contextmanager
def unlogged() -> Iterator[None]:
    """Suppress all log records below ERROR: for libraries that log to the root logger (ONNX Runtime's quantizer)."""
    _unlogged.enter()
    try:
        yield
    finally:
        _unlogged.leave()
