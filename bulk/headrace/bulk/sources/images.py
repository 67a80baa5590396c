"""Image files: each is a row, with its path and its encoded bytes; the preparation decodes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from headrace.bulk.sources.base import Files, RowBatch, Unit, bytes_column, empty_rows, no_rows
from headrace.bulk.sources.projection import project
from headrace.bulk.sources.reading import bad_row, is_past, is_wanted
from headrace.bulk.storage.base import InputMissing
from headrace.results_store.jobs.records import InputFile, Slice

#: A larger file is a bad row: it would have to be held as a whole.
MAX_IMAGE_BYTES: Final = 256 << 20

SCHEMA: Final = pa.schema([("path", pa.string()), ("image", pa.binary())])


class Images:
    """The source for image files. One that is gone, or too large, is a bad row."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:  # noqa: ARG002
        """Return the two columns."""
        return SCHEMA

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:  # noqa: ARG002
        """Yield the only row."""
        yield Unit(number=0, first_row=0, rows=1, size_bytes=file.size)

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the row, if it is in the slice."""
        if is_past(part, 0) or not is_wanted(part, 0, 1):
            return
        schema = project(SCHEMA, columns, file.uri).schema
        try:
            content = self._content(file, storage) if "image" in schema.names else b""
        except InputMissing as exc:
            yield _bad(file, schema, exc.message)
            return
        except ValueError as exc:
            yield _bad(file, schema, str(exc))
            return
        values = {"path": file.uri.encode(errors="replace"), "image": content}
        columns = [bytes_column([values[each.name]], each.type) for each in schema]
        table = pa.RecordBatch.from_arrays(columns, schema=schema)
        yield RowBatch(file_no=file.file_no, table=table, rows=np.zeros(1, np.int64), next_row=1)

    def _content(self, file: InputFile, storage: Files) -> bytes:
        if file.size > MAX_IMAGE_BYTES:
            raise ValueError(f"the file is larger than {MAX_IMAGE_BYTES >> 20} MB")
        with storage.open(file.uri, etag=file.etag) as raw:
            return raw.read()


def _bad(file: InputFile, schema: pa.Schema, message: str) -> RowBatch:
    table = no_rows(schema)
    entry = bad_row(file, 0, message, content=file.uri.encode("utf-8", "surrogateescape"))
    return RowBatch(file_no=file.file_no, table=table, rows=empty_rows(), next_row=1, bad=[entry])
