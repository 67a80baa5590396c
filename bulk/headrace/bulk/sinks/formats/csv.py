"""Parts in CSV: RFC 4180 with a header; text is always quoted, so that empty text and null differ.

Vectors and other nested values are JSON text in a cell, binary is base64. Floats read back exactly; NaN and
infinities are `nan`, `inf` and `-inf`. The null of a table of one column is empty text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from headrace.bulk.sinks.formats.cells import base64_texts, dumps, is_nested, json_values, plain
from headrace.bulk.sinks.formats.scratch import ScratchPart


class CsvPart(ScratchPart):
    """A part in CSV."""

    _sink: Any = None
    _writer: Any = None

    def _open(self, path: Path) -> None:
        self._cells = pa.schema([pa.field(field.name, _cell_type(field.type)) for field in self._schema])
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.csv.CSVWriter(self._sink, self._cells)

    def _write(self, batch: pa.RecordBatch) -> None:
        cells = [_cells(column, field.type) for column, field in zip(batch.columns, self._cells, strict=True)]
        rows = pa.RecordBatch.from_arrays(cells, schema=self._cells)
        if len(cells) == 1 and cells[0].null_count:
            self._write_one_column(rows)
        else:
            self._writer.write_batch(rows)

    def _write_one_column(self, rows: pa.RecordBatch) -> None:
        """Write rows of one column, where a null would be an empty line, which readers pass over."""
        start = 0
        for null in pc.indices_nonzero(rows.column(0).is_null()).to_pylist():
            self._writer.write_batch(rows.slice(start, null - start))
            self._sink.write(b'""\n')
            start = null + 1
        self._writer.write_batch(rows.slice(start))

    def _finish(self) -> None:
        self._writer.close()
        self._sink.close()

    def _discard(self) -> None:
        if self._sink is not None:
            self._sink.close()

    def _size(self) -> int:
        return int(self._sink.tell())


def _cell_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that pyarrow writes as the cells of a column."""
    if isinstance(kind, pa.BaseExtensionType):
        return _cell_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _cell_type(kind.value_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_duration(kind):
        return pa.int64()
    return kind if _is_written(kind) else pa.string()


def _is_written(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    texts = (pa.types.is_string, pa.types.is_large_string)
    return any(test(kind) for test in (*tests, *texts))


def _cells(column: pa.Array, kind: pa.DataType) -> pa.Array:
    column = plain(column)
    if column.type.equals(kind):
        return column
    if is_nested(column.type):
        values = json_values(column)
        return pa.array([None if value is None else dumps(value).decode() for value in values], kind)
    if (
        pa.types.is_binary(column.type)
        or pa.types.is_large_binary(column.type)
        or pa.types.is_fixed_size_binary(column.type)
    ):
        return base64_texts(column)
    return column.cast(kind)
