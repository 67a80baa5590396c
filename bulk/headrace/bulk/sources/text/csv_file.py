"""CSV and TSV: segments of whole rows are the units; cells are delivered as strings, which the preparation casts.

So a late cell of another type harms its row alone. Blank lines are no rows.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa

from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import missing_column, refuse_duplicates
from headrace.bulk.sources.reading import readable, unreadable, within
from headrace.bulk.sources.text.blocks import blocks, compression_of
from headrace.bulk.sources.text.cells import parsed
from headrace.bulk.sources.text.csv_cells import CellParser
from headrace.bulk.sources.text.csv_rows import Header, parse_header, splitter
from headrace.bulk.sources.text.pieces import MAX_ROW_BYTES, Cutter
from headrace.bulk.sources.text.segments import segments
from headrace.results_store.jobs.records import InputFile, Slice

_WHAT: Final = "CSV file"


class Csv:
    """The source for text with a header and delimited fields."""

    def __init__(self, delimiter: str = "", limit: int = MAX_ROW_BYTES) -> None:
        """delimiter: "" is told by the header. limit: bytes of a row."""
        self._delimiter = delimiter
        self._limit = limit

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return the names of the columns, all of them strings."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            header, _ = self._header(file, blocks(raw, file.uri))
        return pa.schema([(name, pa.string()) for name in header.names])

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield segments of whole rows, in one pass over the file; a compressed file is one unit, which isn't read."""
        if compression_of(file.uri):
            yield Unit(number=0, first_row=0, rows=-1, size_bytes=file.size, first_line=0)
            return
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            stream = blocks(raw, file.uri)
            header, more = self._header(file, stream)
            cutter = Cutter(splitter(header.delimiter), 0, header.line, self._limit)
            yield from segments(cutter.pieces(itertools.chain([more], stream)), header.size)

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice. A row with too few or too many fields, or that is not UTF-8, is bad."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            yield from within(part, self._rows(file, part, raw, columns))

    def _rows(self, file: InputFile, part: Slice, raw: BinaryIO, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        stream = blocks(raw, file.uri, 0, part.byte_stop)
        header, more = self._header(file, stream)
        parser = CellParser(header, _wanted(file, header, columns))
        first_row, first_line = part.range_row, part.range_line
        if part.byte_start > header.size and not compression_of(file.uri):
            stream = blocks(raw, file.uri, part.byte_start, part.byte_stop)
        else:
            stream, first_row, first_line = itertools.chain([more], stream), 0, header.line
        cutter = Cutter(splitter(header.delimiter), first_row, first_line, self._limit)
        yield from parsed(file, part, cutter.pieces(stream), parser)

    def _header(self, file: InputFile, stream: Iterator[bytes]) -> tuple[Header, bytes]:
        """Return the header, and what was read behind it."""
        data, header = b"", None
        for block in stream:
            data += block
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise unreadable(file, "is UTF-16; convert it to UTF-8")
            header = self._parse_header(file, data, last=False)
            if header is not None or len(data) > self._limit:
                break
        if b"\n" not in data and b"\r" in data.rstrip(b"\r\n"):
            raise unreadable(file, "has lines that end with a carriage return only; convert them to newlines")
        header = header or self._parse_header(file, data, last=True)
        if header is None:
            raise unreadable(file, "is empty: it has not even a header line")
        refuse_duplicates(header.names, file.uri)
        return header, data[header.size :]

    def _parse_header(self, file: InputFile, data: bytes, *, last: bool) -> Header | None:
        try:
            return parse_header(data, self._delimiter, last=last)
        except (UnicodeDecodeError, csv.Error) as exc:
            raise unreadable(file, f"has a header line that can't be read: {exc}") from exc


def _wanted(file: InputFile, header: Header, columns: Sequence[str] | None) -> Sequence[str]:
    for name in columns or ():
        if name not in header.names:
            raise missing_column(name, header.names, file.uri)
    return header.names if columns is None else tuple(dict.fromkeys(columns))
