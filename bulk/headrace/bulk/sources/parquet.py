"""Parquet: row groups are the units. Read as a stream of batches, so that no row group is ever held as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import project, refuse_duplicates
from headrace.bulk.sources.reading import is_past, is_wanted, numbered, readable, within
from headrace.bulk.sources.soundness import sound
from headrace.results_store.jobs.records import InputFile, Slice

#: Decoded bytes of a batch, about: small beside a worker, large beside what is done once for each batch.
BATCH_BYTES: Final = 4 << 20

#: Rows of a batch at most.
BATCH_ROWS: Final = 16_384

#: A row group of more stored bytes than this is not fetched column by column but in pieces of each column.
WHOLE_BYTES: Final = 32 << 20

#: What all columns together have buffered of such a row group.
BUFFERED_BYTES: Final = 16 << 20

#: A smaller piece of a column would be a request of its own to an object store for little.
LEAST_BUFFER_BYTES: Final = 64 << 10

_WHAT: Final = "Parquet file"


class Parquet:
    """The source for Parquet files. Nested fields are columns under their dotted path."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return names and types of the columns."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            found = pq.read_schema(raw)
        refuse_duplicates(found.names, file.uri)
        return found.remove_metadata()

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield the row groups that have rows."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            metadata = pq.read_metadata(raw)
            first, total = 0, max(metadata.num_rows, 1)
            for number in range(metadata.num_row_groups):
                rows = metadata.row_group(number).num_rows
                if rows:
                    yield Unit(number=number, first_row=first, rows=rows, size_bytes=file.size * rows // total)
                first += rows

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice; those before it in its first row group are decoded and passed over."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            yield from within(part, self._rows(file, part, raw, columns))

    def _rows(self, file: InputFile, part: Slice, raw: BinaryIO, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        metadata = pq.read_metadata(raw)
        schema = metadata.schema.to_arrow_schema().remove_metadata()
        projection = project(schema, columns, file.uri)
        last = metadata.num_row_groups if part.units < 0 else min(part.unit + part.units, metadata.num_row_groups)
        first, row_bytes = part.range_row, 0
        buffer_bytes = _buffer_bytes(metadata, projection.stored)
        with pq.ParquetFile(raw, metadata=metadata, pre_buffer=False, buffer_size=buffer_bytes) as opened:
            for number in range(part.unit, last):
                rows = metadata.row_group(number).num_rows
                if is_past(part, first):
                    return
                if is_wanted(part, first, rows):
                    row_bytes = row_bytes or _row_bytes(metadata.row_group(number), projection.stored)
                    tables = opened.iter_batches(
                        batch_size=min(max(BATCH_BYTES // row_bytes, 1), BATCH_ROWS),
                        row_groups=[number],
                        columns=projection.stored,
                        use_threads=False,
                    )
                    for batch in sound(file, numbered(file, (projection.apply(each) for each in tables), first)):
                        yield batch
                        row_bytes = max(row_bytes, batch.table.nbytes // max(len(batch.rows), 1))
                first += rows


def _row_bytes(group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """Return about how many bytes a row takes when it is decoded."""
    names, insides = set(columns), tuple(f"{name}." for name in columns)
    total = 0.0
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in names or column.path_in_schema.startswith(insides):
            total += _value_bytes(column) * column.num_values
    return int(total / max(group.num_rows, 1)) or 1


def _value_bytes(column: pq.ColumnChunkMetaData) -> float:
    """Return about how many bytes a decoded value takes; of a dictionary, by the longest value that is known."""
    if not column.physical_type.endswith("BYTE_ARRAY"):
        return 8.0
    stored: float = column.total_uncompressed_size / max(column.num_values, 1)
    statistics = column.statistics
    if column.has_dictionary_page and statistics is not None and statistics.has_min_max:
        stored = max(stored, len(statistics.min_raw), len(statistics.max_raw))
    return max(stored, 4.0)


def _buffer_bytes(metadata: pq.FileMetaData, columns: Sequence[str]) -> int:
    """Return how much of a column is fetched at once; 0 is all of it that is in a row group."""
    largest = max((_stored_bytes(metadata, number) for number in range(min(metadata.num_row_groups, 16))), default=0)
    if largest <= WHOLE_BYTES:
        return 0
    return max(BUFFERED_BYTES // max(len(columns), 1), LEAST_BUFFER_BYTES)


def _stored_bytes(metadata: pq.FileMetaData, number: int) -> int:
    return int(metadata.row_group(number).total_byte_size)
