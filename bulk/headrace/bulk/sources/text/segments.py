"""Segments: the units of a text file, each of some MB of whole rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from headrace.bulk.sources.base import Unit
from headrace.bulk.sources.text.pieces import Piece

#: A segment has at least these bytes: a file of 10 GB has about a thousand, and several workers share one of 100 MB.
SEGMENT_BYTES: Final = 8 << 20


def segments(pieces: Iterable[Piece], start: int, least_bytes: int = SEGMENT_BYTES) -> Iterator[Unit]:
    """Yield pieces gathered into units; one without rows is left out. start: the byte at which the first begins."""
    number = rows = size = row = 0
    line = -1
    for piece in pieces:
        line = piece.first_line if line < 0 else line
        size += piece.size_bytes
        rows += piece.rows
        if size >= least_bytes and rows:
            yield _unit(number, row, rows, start, size, line)
            number, row, start, rows, size, line = number + 1, row + rows, start + size, 0, 0, -1
    if rows:
        yield _unit(number, row, rows, start, size, line)


def _unit(number: int, row: int, rows: int, start: int, size: int, line: int) -> Unit:
    return Unit(
        number=number,
        first_row=row,
        rows=rows,
        byte_start=start,
        byte_stop=start + size,
        size_bytes=size,
        first_line=line,
    )
