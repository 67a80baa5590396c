"""Reading ahead: small files in an object store are read several at once, because each costs a round trip or two."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

from headrace.bulk.sources.base import InputUnreadable, RowBatch
from headrace.results_store.jobs.records import InputFile

#: Files that are read at once: with 20 ms for each, 400 a second.
AT_ONCE: Final = 8

#: Larger files are read when it is their turn: for them the round trip is little, and they would have to be held.
SMALL_BYTES: Final = 1 << 20

#: Reads one file.
Read: TypeAlias = Callable[[InputFile], Iterator[RowBatch]]

#: Files with their rows. To be closed.
Reads: TypeAlias = Generator[tuple[InputFile, Iterator[RowBatch]], None, None]

_Whole: TypeAlias = tuple[list[RowBatch], InputUnreadable | None]


def in_turn(files: Iterable[InputFile], read: Read) -> Reads:
    """Yield files with their rows, each read when it is its turn."""
    return ((file, read(file)) for file in files)


def ahead(files: Iterable[InputFile], read: Read) -> Reads:
    """Yield files with their rows, in order; small ones are read before it is their turn. Errors come in order too."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="headrace-bulk-file")
    waiting: deque[tuple[InputFile, Future[_Whole] | None]] = deque()
    todo = iter(files)
    try:
        while True:
            while len(waiting) < 2 * AT_ONCE and (file := next(todo, None)) is not None:
                is_small = 0 <= file.size <= SMALL_BYTES
                waiting.append((file, pool.submit(_read_whole, read, file) if is_small else None))
            if not waiting:
                return
            file, future = waiting.popleft()
            yield file, read(file) if future is None else _replayed(future)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_whole(read: Read, file: InputFile) -> _Whole:
    batches: list[RowBatch] = []
    try:
        batches.extend(read(file))
    except InputUnreadable as exc:
        return batches, exc
    return batches, None


def _replayed(future: Future[_Whole]) -> Iterator[RowBatch]:
    batches, error = future.result()
    yield from batches
    if error is not None:
        raise error
