"""Keeps libraries from telling a user what only their makers understand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO


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


@contextmanager
def unlogged() -> Iterator[None]:
    """Let nobody log below an error: for libraries that write to the root logger, as ONNX Runtime's quantizer does."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
