"""The requests of one bucket, in the order in which they should run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeAlias, TypeVar

from headrace.workers.batching.batch import Item

T = TypeVar("T")

#: For each such time that a request has waited, it counts as one priority higher (without an upper end). So the
#: lowest priority overtakes fresh requests of the highest after 10 s, and nothing waits forever; far longer than
#: a healthy queue is, so that priorities alone decide in daily life.
AGEING_S: Final = 1.0

#: Keeps an item whose ageing is due at exactly `now` from missing it by a rounding error.
_ROUNDING: Final = 1e-9

_INF: Final = math.inf

#: Deadline (infinite for none), arrival, a number that settles ties in the order of `add`, the item.
Entry: TypeAlias = tuple[float, float, int, Item[T]]


class PriorityQueue(Generic[T]):
    """Requests of one level (priority plus ageing): by deadline, then arrival.

    fifo: those without a deadline that came in order of arrival and have not aged, so that the common case is a
    plain queue. heap: all others.
    """

    __slots__ = ("fifo", "heap")

    def __init__(self) -> None:
        """Start empty."""
        self.fifo: deque[Item[T]] = deque()
        self.heap: list[Entry[T]] = []

    def head(self) -> tuple[float, float]:
        """Return deadline and arrival of the request that comes first; the queue must not be empty."""
        first = (_INF, self.fifo[0].arrived) if self.fifo else (_INF, _INF)
        return min(first, self.heap[0][:2]) if self.heap else first

    def oldest(self) -> float:
        """Return the earliest arrival; the queue must not be empty."""
        first = self.fifo[0].arrived if self.fifo else _INF
        return min([first, *[entry[1] for entry in self.heap]]) if self.heap else first

    def heap_is_first(self) -> bool:
        """Return whether the next request is in the heap rather than in the fifo."""
        return bool(self.heap) and (not self.fifo or self.heap[0][:2] <= (_INF, self.fifo[0].arrived))

    def __iter__(self) -> Iterator[Item[T]]:
        """Return all requests, in no particular order."""
        yield from self.fifo
        for entry in self.heap:
            yield entry[3]


class Bucket(Generic[T]):
    """Waiting requests that may share a batch. rows: the sum of their rows."""

    __slots__ = ("_by_priority", "_numbers", "rows")

    def __init__(self) -> None:
        """Start empty."""
        self.rows = 0
        self._by_priority: dict[int, PriorityQueue[T]] = {}
        self._numbers = count()

    def add(self, item: Item[T]) -> float:
        """Queue a request; return when it ages or expires next, or infinity if others do so earlier."""
        self.rows += item.rows
        waiting = self._by_priority.get(item.priority)
        if waiting is None:
            waiting = self._by_priority[item.priority] = PriorityQueue()
        if item.deadline is None:
            fifo = waiting.fifo
            if not fifo:
                fifo.append(item)
                return item.arrived + AGEING_S
            if fifo[-1].arrived <= item.arrived:
                fifo.append(item)
                # The first of the queue ages first.
                return _INF
        self._push(item.priority, item)
        return _due(item, item.priority)

    def urgency(self) -> tuple[int, float, float]:
        """Return the sorting key of the most urgent request: smaller is more urgent. The bucket must not be empty."""
        level = max(self._by_priority)
        return (-level, *self._by_priority[level].head())

    def pop_all(self) -> list[Item[T]]:
        """Take out all requests, most urgent first."""
        if len(self._by_priority) == 1:
            (waiting,) = self._by_priority.values()
            if not waiting.heap:
                self._by_priority.clear()
                self.rows = 0
                return list(waiting.fifo)
        return self.pop_rows(self.rows)

    def pop_rows(self, most: int) -> list[Item[T]]:
        """Take out the most urgent requests that hold at most `most` rows together; the first in any case."""
        items: list[Item[T]] = []
        room = most
        while self._by_priority:
            level = max(self._by_priority)
            room = _move(self._by_priority[level], items, room)
            if room < 0:
                break
            del self._by_priority[level]
        self.rows -= sum([item.rows for item in items])
        return items

    def put_back(self, items: list[Item[T]], now: float) -> None:
        """Return requests that were taken out just now."""
        for item in items:
            self.rows += item.rows
            self._push(_level(item, now), item)

    def review(self, now: float) -> list[Item[T]]:
        """Take out the requests whose deadline has passed, and move up those that have aged."""
        expired: list[Item[T]] = []
        for level in list(self._by_priority):
            waiting = self._by_priority[level]
            while waiting.heap and waiting.heap[0][0] <= now:
                expired.append(heappop(waiting.heap)[3])
            self._promote(waiting, level, now)
            if not waiting.fifo and not waiting.heap:
                del self._by_priority[level]
        self.rows -= sum(item.rows for item in expired)
        return expired

    def next_review(self) -> float:
        """Return the earliest moment at which a request ages or expires."""
        due = _INF
        for level, waiting in self._by_priority.items():
            if waiting.fifo:
                due = min(due, waiting.fifo[0].arrived + AGEING_S)
            for entry in waiting.heap:
                due = min(due, _due(entry[3], level))
        return due

    def oldest(self) -> float:
        """Return the earliest arrival. The bucket must not be empty."""
        return min([waiting.oldest() for waiting in self._by_priority.values()])

    def earliest_deadline(self) -> float:
        """Return the earliest deadline; infinity if there is none."""
        return min((waiting.heap[0][0] for waiting in self._by_priority.values() if waiting.heap), default=_INF)

    def remove(self, unwanted: Callable[[Item[T]], bool]) -> list[Item[T]]:
        """Take out all requests for which `unwanted` is true."""
        removed = [item for item in self if unwanted(item)]
        if not removed:
            return removed
        gone = set(removed)
        for level, waiting in list(self._by_priority.items()):
            waiting.fifo = deque(item for item in waiting.fifo if item not in gone)
            waiting.heap = [entry for entry in waiting.heap if entry[3] not in gone]
            heapify(waiting.heap)
            if not waiting.fifo and not waiting.heap:
                del self._by_priority[level]
        self.rows -= sum(item.rows for item in removed)
        return removed

    def __iter__(self) -> Iterator[Item[T]]:
        """Return all requests, in no particular order."""
        for waiting in self._by_priority.values():
            yield from waiting

    def __len__(self) -> int:
        """Return the number of requests."""
        return sum(len(waiting.fifo) + len(waiting.heap) for waiting in self._by_priority.values())

    def _push(self, level: int, item: Item[T]) -> None:
        waiting = self._by_priority.get(level)
        if waiting is None:
            waiting = self._by_priority[level] = PriorityQueue()
        deadline = _INF if item.deadline is None else item.deadline
        heappush(waiting.heap, (deadline, item.arrived, next(self._numbers), item))

    def _promote(self, waiting: PriorityQueue[T], level: int, now: float) -> None:
        aged: list[Item[T]] = []
        while waiting.fifo and _level(waiting.fifo[0], now) > level:
            aged.append(waiting.fifo.popleft())
        staying = [entry for entry in waiting.heap if _level(entry[3], now) <= level]
        if len(staying) < len(waiting.heap):
            aged += [entry[3] for entry in sorted(waiting.heap) if _level(entry[3], now) > level]
            waiting.heap = staying
            heapify(waiting.heap)
        for item in aged:
            self._push(_level(item, now), item)


def _move(waiting: PriorityQueue[T], items: list[Item[T]], room: int) -> int:
    """Move requests from a queue while they fit; return the room that is left, or -1 if one did not fit."""
    fifo, heap = waiting.fifo, waiting.heap
    while fifo or heap:
        from_heap = bool(heap) and waiting.heap_is_first()
        item = heap[0][3] if from_heap else fifo[0]
        if item.rows > room and items:
            return -1
        room = max(room - item.rows, 0)
        items.append(item)
        if from_heap:
            heappop(heap)
        else:
            fifo.popleft()
    return room


def _level(item: Item[T], now: float) -> int:
    return item.priority + max(int((now - item.arrived) / AGEING_S + _ROUNDING), 0)


def _due(item: Item[T], level: int) -> float:
    """Return the next moment at which an item of this level ages or expires."""
    ages = item.arrived + (level - item.priority + 1) * AGEING_S
    return ages if item.deadline is None else min(ages, item.deadline)
