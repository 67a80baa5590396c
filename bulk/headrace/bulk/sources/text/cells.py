"""Cells: what became of the rows of a piece, and the batches that are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.sources.base import RowBatch, empty_rows, no_rows
from headrace.bulk.sources.reading import bad_row, is_past, is_wanted
from headrace.bulk.sources.text.pieces import Piece
from headrace.results_store.jobs.records import InputFile, Slice


class Cells(msgspec.Struct, frozen=True):
    """The columns of the good rows of a piece. good: their positions in it. bad: position and reason of the others."""

    table: pa.RecordBatch
    good: NDArray[np.int64]
    bad: dict[int, str]


class Parser(Protocol):
    """Parses pieces of one file. schema: of all tables."""

    schema: pa.Schema

    def parse(self, piece: Piece) -> Cells:
        """Return the cells of a piece with rows."""
        ...


def parsed(file: InputFile, part: Slice, pieces: Iterable[Piece], parser: Parser) -> Iterator[RowBatch]:
    """Yield the rows of pieces, those outside of a slice left out as far as it saves work."""
    for piece in pieces:
        if is_past(part, piece.first_row):
            return
        if piece.rows and is_wanted(part, piece.first_row, piece.rows):
            yield _batch(file, piece, parser)


def _batch(file: InputFile, piece: Piece, parser: Parser) -> RowBatch:
    cells = (
        parser.parse(piece) if not piece.problem else Cells(no_rows(parser.schema), empty_rows(), {0: piece.problem})
    )
    bad = [
        bad_row(file, piece.first_row + at, reason, line=piece.line(at), content=piece.row(at))
        for at, reason in sorted(cells.bad.items())
    ]
    return RowBatch(
        file_no=file.file_no,
        table=cells.table,
        rows=piece.first_row + cells.good,
        next_row=piece.first_row + piece.rows,
        bad=bad,
    )
