"""Waiting that can be ended from outside with an error of its own."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Interruptible:
    """The body of an `async with` that `interrupt` ends, as a time-out ends that of `asyncio.timeout`."""

    __slots__ = ("_error", "_task")

    def __init__(self) -> None:
        """Not entered yet."""
        self._task: asyncio.Task[object] | None = None
        self._error: Exception | None = None

    def interrupt(self, error: Exception) -> None:
        """Raise an error where the body waits, or when it is entered; only the first counts. Call it from the loop."""
        if self._error is None:
            self._error = error
            if self._task is not None:
                self._task.cancel()

    async def __aenter__(self) -> Self:
        """Enter the body."""
        if self._error is not None:
            raise self._error
        self._task = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the body, with the error of `interrupt` if it came."""
        task, self._task = self._task, None
        if self._error is not None and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._error from None
