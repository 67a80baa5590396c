"""Grouped calls of asyncio tasks: while one call is under way, submissions of other tasks gather for the next."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from headrace.contracts.errors import HeadraceError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Parcel(Generic[T, R]):
    """One task's submission. result: awaited by the task, which may be cancelled meanwhile."""

    item: T
    result: asyncio.Future[R]

    def settle(self, result: R) -> None:
        """Return a result to the task."""
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, cause: HeadraceError) -> None:
        """Raise an error in the task; each has its own copy, as tracebacks are added to it."""
        if not self.result.done():
            error = type(cause)(cause.message)
            error.__cause__ = cause.__cause__
            self.result.set_exception(error)


@dataclass(slots=True)
class _Line(Generic[T, R]):
    """The parcels that wait for one queue and priority, and the task that makes the calls for them."""

    parcels: list[Parcel[T, R]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class GroupedCalls(ABC, Generic[T, R]):
    """Makes calls for many tasks of one event loop, one at a time for each queue and priority.

    A task that is cancelled meanwhile doesn't take its item back.
    """

    #: Name of the tasks that make the calls.
    name: ClassVar[str]

    def __init__(self) -> None:
        """Start without calls."""
        self._lines: dict[tuple[str, int], _Line[T, R]] = {}

    @abstractmethod
    def share(self, item: T) -> float:
        """Return the share of the largest call that an item takes; above 1 it goes by itself."""

    @abstractmethod
    async def call(self, queue: str, priority: int, parcels: Sequence[Parcel[T, R]]) -> None:
        """Make one call for some parcels, and settle or fail each."""

    async def submit(self, queue: str, priority: int, item: T) -> R:
        """Have an item go with the next call; return its result."""
        line = self._lines.setdefault((queue, priority), _Line())
        parcel = Parcel[T, R](item, asyncio.get_running_loop().create_future())
        line.parcels.append(parcel)
        if line.task is None:
            line.task = asyncio.create_task(self._call_all(queue, priority, line), name=self.name)
        return await parcel.result

    async def _call_all(self, queue: str, priority: int, line: _Line[T, R]) -> None:
        taken: list[Parcel[T, R]] = []
        try:
            while line.parcels:
                count = self._fitting(line.parcels)
                taken, line.parcels = line.parcels[:count], line.parcels[count:]
                await self.call(queue, priority, taken)
        finally:
            # Nothing is left here unless the loop shuts down or a bug surfaced: then nobody must wait.
            for parcel in taken + line.parcels:
                parcel.result.cancel()
            del self._lines[queue, priority]

    def _fitting(self, parcels: Sequence[Parcel[T, R]]) -> int:
        """Return how many of the first parcels one call takes; at least one."""
        total = 0.0
        for count, parcel in enumerate(parcels):
            total += self.share(parcel.item)
            if count and total > 1:
                return count
        return len(parcels)

    async def close(self) -> None:
        """Wait until calls were made for all items."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
