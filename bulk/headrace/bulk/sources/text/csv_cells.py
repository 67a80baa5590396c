"""Cells of CSV: the rows of a piece become columns of strings; rows that can't are named. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from headrace.bulk.sources.base import no_rows
from headrace.bulk.sources.text.cells import Cells
from headrace.bulk.sources.text.csv_rows import Header
from headrace.bulk.sources.text.pieces import Piece


class CellParser:
    """Parses pieces of one file. An empty cell is null; two quotes are an empty string."""

    def __init__(self, header: Header, columns: Sequence[str]) -> None:
        """columns: those that are delivered."""
        self._header = header
        self._read = pacsv.ReadOptions(column_names=list(header.names), use_threads=False)
        self._convert = pacsv.ConvertOptions(
            # Bytes first: pyarrow would refuse all rows for one that is not UTF-8.
            column_types={name: pa.binary() for name in header.names},
            include_columns=list(columns),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        self.schema = pa.schema([(name, pa.string()) for name in columns])

    def parse(self, piece: Piece) -> Cells:
        """Return the cells of a piece."""
        found = self._parse_rows(piece, 0, piece.rows)
        good = np.concatenate([each.good for each in found])
        bad = {at: reason for each in found for at, reason in each.bad.items()}
        if not len(good):
            return Cells(no_rows(self.schema), good, bad)
        return self._as_text(pa.concat_batches([each.table for each in found if len(each.good)]), good, bad)

    def _parse_rows(self, piece: Piece, start: int, stop: int) -> list[Cells]:
        """Parse rows at once; those that pyarrow cuts in another way than we do, in halves down to the row itself."""
        bad: dict[int, str] = {}

        def note(row: pacsv.InvalidRow) -> str:
            bad[start + (row.number or 1) - 1] = f"{row.actual_columns} fields, the header has {row.expected_columns}"
            return "skip"

        table = self._try(piece.data[int(piece.starts[start]) : int(piece.stops[stop - 1])], note)
        if table is not None and table.num_rows + len(bad) == stop - start:
            places = np.arange(start, stop)
            return [Cells(_as_batch(table), np.delete(places, [at - start for at in bad]) if bad else places, bad)]
        if stop - start == 1:
            reason = "a carriage return in the middle of the line, or other damage"
            return [Cells(no_rows(self.schema), np.empty(0, np.int64), {start: reason})]
        middle = (start + stop) // 2
        return self._parse_rows(piece, start, middle) + self._parse_rows(piece, middle, stop)

    def _try(self, data: bytes, note: object) -> pa.Table | None:
        self._read.block_size = len(data) + 1
        parse = pacsv.ParseOptions(delimiter=self._header.delimiter, newlines_in_values=True, invalid_row_handler=note)
        try:
            return pacsv.read_csv(pa.BufferReader(data), self._read, parse, self._convert)
        except pa.ArrowInvalid:
            return None

    def _as_text(self, table: pa.RecordBatch, good: NDArray[np.int64], bad: dict[int, str]) -> Cells:
        """Turn bytes into strings; a row with bytes that aren't UTF-8 is bad."""
        try:
            return Cells(table.cast(self.schema), good, bad)
        except pa.ArrowInvalid:
            pass
        damaged: dict[int, str] = {}
        for name, column in zip(table.schema.names, table.columns, strict=True):
            for at in _not_text(column):
                damaged.setdefault(at, f"column {name!r} is not UTF-8")
        keep = np.delete(np.arange(len(good)), list(damaged))
        return Cells(
            table.take(pa.array(keep)).cast(self.schema),
            good[keep],
            bad | {int(good[at]): reason for at, reason in damaged.items()},
        )


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    found = table.combine_chunks().to_batches()
    return found[0] if found else no_rows(table.schema)


def _not_text(column: pa.Array) -> list[int]:
    """Return where a column has bytes that aren't UTF-8."""
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        pass
    else:
        return []
    found = []
    for at, value in enumerate(column.to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            found.append(at)
    return found
