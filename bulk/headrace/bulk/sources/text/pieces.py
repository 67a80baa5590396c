"""Pieces: whole rows of a text file with their numbers, lines and places, cut out of its blocks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

#: A longer row is bad: it has to be held as a whole, several times over. `limit` in tests.
MAX_ROW_BYTES: Final = 64 << 20

#: How much of a row that is too long is kept, for its entry among the errors.
_KEPT_BYTES: Final = 64 << 10

_NEWLINE: Final = 10


class Split(msgspec.Struct, frozen=True):
    """Where rows end in some bytes. ends: behind the newline of each, blank ones too. newlines: their places, those
    inside quotes too. quoted: whether the bytes end inside quotes."""

    ends: NDArray[np.int64]
    newlines: NDArray[np.int64]
    quoted: bool = False


#: Finds rows in bytes that begin with a row.
Splitter: TypeAlias = Callable[[bytes], Split]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Whole rows. starts, stops: of each row in `data`, newline included; blank ones are left out.

    first_row, first_line: numbers of the first row and of the first line of `data`. size_bytes: in the file, also where
    `data` is less. problem: why the only row is bad.
    """

    data: bytes
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    first_row: int
    first_line: int
    size_bytes: int
    problem: str = ""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts)

    def row(self, index: int) -> bytes:
        """Return the bytes of a row, without its newline."""
        return self.data[int(self.starts[index]) : int(self.stops[index])].rstrip(b"\r\n")

    def line(self, index: int) -> int:
        """Return the line at which a row begins; 0 if nobody knows."""
        return self.first_line and self.first_line + self.data.count(b"\n", 0, int(self.starts[index]))


def split_lines(data: bytes) -> Split:
    """Find lines: rows end at every newline."""
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    return Split(newlines + 1, newlines)


class Cutter:
    """Cuts blocks into pieces. What it finds doesn't depend on where blocks end, but for the pieces themselves."""

    def __init__(self, split: Splitter, first_row: int = 0, first_line: int = 1, limit: int = MAX_ROW_BYTES) -> None:
        """first_row, first_line: numbers of what comes first. first_line 0: nobody knows."""
        self._split = split
        self._row = first_row
        self._line = first_line
        self._limit = limit
        self._kept = min(limit, _KEPT_BYTES)
        self._pending = b""
        #: Blocks behind what is pending, which are joined with it when rows are looked for.
        self._more: list[bytes] = []
        #: Bytes that must be pending before rows are looked for again, so that a long row is not split at each block.
        self._enough = 0
        #: The beginning of a row that is too long to be held, and how long it is so far.
        self._long: tuple[bytes, int] | None = None

    def pieces(self, blocks: Iterable[bytes]) -> Iterator[Piece]:
        """Yield the rows of all blocks, of which the first begins with a row."""
        for block in blocks:
            if self._long is not None:
                yield from self._skip(*self._long, block)
            else:
                self._more.append(block)
            if self._held() >= self._enough:
                yield from self._take(last=False)
        yield from self._take(last=True)
        if self._long is not None:
            yield self._too_long(*self._long)

    def _skip(self, start: bytes, size: int, block: bytes) -> Iterator[Piece]:
        """Pass over the rest of a row that is too long; what follows its end is pending."""
        end = block.find(b"\n") + 1
        self._long = (start, size + (end or len(block)))
        if end:
            yield self._too_long(*self._long)
            self._line += 1 if self._line else 0
            self._long, self._more = None, [block[end:]]

    def _held(self) -> int:
        return len(self._pending) + sum(map(len, self._more))

    def _take(self, *, last: bool) -> Iterator[Piece]:
        if self._more:
            self._pending, self._more = b"".join((self._pending, *self._more)), []
        while self._pending:
            found = self._split(self._pending)
            bad = self._first_bad(found, last=last)
            ends = found.ends[: int(np.searchsorted(found.ends, bad, "right"))] if bad >= 0 else found.ends
            if last and bad < 0 and (not len(ends) or ends[-1] < len(self._pending)):
                ends = np.append(ends, len(self._pending))
            if len(ends):
                yield self._piece(ends, found.newlines)
            if bad < 0:
                self._enough = 2 * len(self._pending) if not len(ends) else 0
                return
            self._enough = 0
            yield from self._bad()

    def _first_bad(self, found: Split, *, last: bool) -> int:
        """Return where the first row begins that is too long, or whose quotes aren't closed; -1 if there is none."""
        edges = np.concatenate(([0], found.ends, [len(self._pending)]))
        long = np.flatnonzero(np.diff(edges) > self._limit)
        if len(long):
            return int(edges[long[0]])
        return int(edges[-2]) if last and found.quoted else -1

    def _piece(self, ends: NDArray[np.int64], newlines: NDArray[np.int64]) -> Piece:
        size = int(ends[-1])
        data, self._pending = self._pending[:size], self._pending[size:]
        starts = np.concatenate(([0], ends[:-1]))
        content = _has_content(data, starts, ends)
        if content is not None:
            starts, ends = starts[content], ends[content]
        piece = Piece(data=data, starts=starts, stops=ends, first_row=self._row, first_line=self._line, size_bytes=size)
        self._row += piece.rows
        self._line += int(np.searchsorted(newlines, size)) if self._line else 0
        return piece

    def _bad(self) -> Iterator[Piece]:
        """Take the first line of what is pending as a bad row; what follows is read as if it were not there."""
        size = self._pending.find(b"\n") + 1
        if not size and len(self._pending) > self._limit:
            self._long, self._pending = (self._pending[: self._kept], len(self._pending)), b""
            return
        size = size or len(self._pending)
        data, self._pending = self._pending[:size], self._pending[size:]
        if size > self._limit:
            yield self._too_long(data[: self._kept], size)
        else:
            yield self._one(data, size, "a quote is not closed")
        self._line += int(data.endswith(b"\n")) if self._line else 0

    def _too_long(self, start: bytes, size: int) -> Piece:
        return self._one(start, size, f"the row is longer than {self._limit / (1 << 20):g} MB")

    def _one(self, data: bytes, size: int, problem: str) -> Piece:
        edges = np.array([0, len(data)])
        piece = Piece(
            data=data,
            starts=edges[:1],
            stops=edges[1:],
            first_row=self._row,
            first_line=self._line,
            size_bytes=size,
            problem=problem,
        )
        self._row += 1
        return piece


def _has_content(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Return which rows aren't blank; None is all of them."""
    short = np.flatnonzero(ends - starts <= 2)
    if not len(short):
        return None
    found = np.ones(len(starts), np.bool_)
    found[short] = [bool(data[starts[at] : ends[at]].strip(b"\r\n")) for at in short]
    return found
