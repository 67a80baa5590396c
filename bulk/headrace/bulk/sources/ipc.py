"""Arrow IPC (Feather version 2), as a file or as a stream: record batches are the units."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa

from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import project, refuse_duplicates
from headrace.bulk.sources.reading import is_past, is_wanted, numbered, readable, unreadable, within
from headrace.bulk.sources.soundness import sound
from headrace.results_store.jobs.records import InputFile, Slice

_WHAT: Final = "Arrow file"

#: How files begin. A stream begins with the length of its first message.
_FILE_MAGIC: Final = b"ARROW1"
_FEATHER_1_MAGIC: Final = b"FEA1"


class Ipc:
    """The source for Arrow IPC. A stream can't be read from its middle, and is one unit."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return names and types of the columns."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            found = _open(file, raw).schema
        refuse_duplicates(found.names, file.uri)
        return found.remove_metadata()

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield the record batches that have rows; one column is read for that."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            opened = _open(file, raw)
            if not isinstance(opened, pa.RecordBatchFileReader):
                yield Unit(number=0, first_row=0, rows=-1, size_bytes=file.size)
                return
            opened = _open(file, raw, _narrowest(opened.schema))
            first, size = 0, file.size // max(opened.num_record_batches, 1)
            for number in range(opened.num_record_batches):
                rows = opened.get_batch(number).num_rows
                if rows:
                    yield Unit(number=number, first_row=first, rows=rows, size_bytes=size)
                first += rows

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice. One record batch is held at a time."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            yield from within(part, self._rows(file, part, raw, columns))

    def _rows(self, file: InputFile, part: Slice, raw: BinaryIO, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        schema = _open(file, raw).schema.remove_metadata()
        projection = project(schema, columns, file.uri)
        tops = dict.fromkeys(name if name in schema.names else name.partition(".")[0] for name in projection.stored)
        opened = _open(file, raw, [schema.get_field_index(name) for name in tops])
        row = part.range_row
        for table in _batches(opened, part):
            if is_past(part, row):
                return
            if is_wanted(part, row, table.num_rows):
                yield from sound(file, numbered(file, [projection.apply(table.replace_schema_metadata(None))], row))
            row += table.num_rows


class _Bounded(io.RawIOBase):
    """A file of which no more is asked for than there is: a damaged length would take all memory. Stays open."""

    def __init__(self, raw: BinaryIO, size: int) -> None:
        super().__init__()
        self._raw = raw
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def read(self, size: int = -1, /) -> bytes:
        left = max(self._size - self._raw.tell(), 0)
        return self._raw.read(left if size < 0 else min(size, left))


def _open(
    file: InputFile, raw: BinaryIO, fields: Sequence[int] | None = None
) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """Open a file from its beginning. fields: the columns that are decoded."""
    raw.seek(0)
    magic = raw.read(8)
    raw.seek(0)
    if magic.startswith(_FEATHER_1_MAGIC):
        raise unreadable(file, "is Feather version 1; write it again with version 2")
    options = pa.ipc.IpcReadOptions(included_fields=None if fields is None else list(fields), use_threads=False)
    bounded = pa.PythonFile(_Bounded(raw, file.size), mode="r")
    if magic.startswith(_FILE_MAGIC):
        return pa.ipc.open_file(bounded, options=options)
    return pa.ipc.open_stream(bounded, options=options)


def _narrowest(schema: pa.Schema) -> list[int]:
    """Return the column that is read to count rows: one of fixed width, if there is one."""
    widths = {at: field.type.bit_width for at, field in enumerate(schema) if pa.types.is_primitive(field.type)}
    return [min(widths, key=lambda at: widths[at]) if widths else 0] if len(schema) else []


def _batches(opened: pa.RecordBatchFileReader | pa.RecordBatchStreamReader, part: Slice) -> Iterator[pa.RecordBatch]:
    if not isinstance(opened, pa.RecordBatchFileReader):
        yield from opened
        return
    last = opened.num_record_batches
    for number in range(part.unit, last if part.units < 0 else min(part.unit + part.units, last)):
        yield opened.get_batch(number)
