"""Keeps libraries from telling a user what only their makers understand."""

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
    """Let no warning through, and of these loggers nothing below an error."""
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
    """Let nothing through that is printed, either."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(redirect_stderr(StringIO()))
        stack.enter_context(quieted(*loggers))
        yield


class _Unlogged:
    """How many threads want nobody to log; the last to leave restores what the first found, in whatever order."""

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
    """Let nobody log below an error: for libraries that write to the root logger, as ONNX Runtime's quantizer does."""
    _unlogged.enter()
    try:
        yield
    finally:
        _unlogged.leave()
