"""What closes connections with the test, over HTTP and over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol, TypeVar

import pytest


class Closable(Protocol):
    def close(self) -> None: ...


_Opened = TypeVar("_Opened", bound=Closable)


class Closing:
    """Returns what it is given, and closes it with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, opened: _Opened) -> _Opened:
        self._stack.callback(opened.close)
        return opened


@pytest.fixture
def closing() -> Iterator[Closing]:
    with ExitStack() as stack:
        yield Closing(stack)
