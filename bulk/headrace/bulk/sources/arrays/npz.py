"""`.npz`: arrays of equal length under their names, each a column; read side by side."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO, Final, cast

import pyarrow as pa

from headrace.bulk.sources.arrays.columns import arrow_column, arrow_type
from headrace.bulk.sources.arrays.layout import Layout, read_layout, read_rows
from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import project
from headrace.bulk.sources.reading import numbered, readable, unreadable
from headrace.results_store.jobs.records import InputFile, Slice

_WHAT: Final = "NumPy archive"
_SUFFIX: Final = ".npy"

#: What is read at once to get past rows of an array that is packed.
_SKIPPED_BYTES: Final = 1 << 20


class Npz:
    """The source for `.npz`. Rows before a slice are unpacked and passed over, so an archive is one unit."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return the names of the arrays and the types of their rows."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            return _schema(_layouts(file, raw))

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield all rows; only headers are read."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            rows = _rows(_layouts(file, raw))
        if rows:
            yield Unit(number=0, first_row=0, rows=rows, size_bytes=file.size)

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            layouts = _layouts(file, raw)
            schema = project(_schema(layouts), columns, file.uri).schema
            rows = _rows(layouts)
            stop = min(part.row_start + part.rows, rows) if part.rows >= 0 else rows
            wanted = {name: layouts[name] for name in schema.names}
            with ExitStack() as stack, zipfile.ZipFile(raw) as archive:
                members = {name: stack.enter_context(archive.open(name + _SUFFIX)) for name in wanted}
                tables = _tables(cast("dict[str, BinaryIO]", members), wanted, schema, (part.row_start, stop))
                yield from numbered(file, tables, part.row_start)


def _tables(
    members: dict[str, BinaryIO], layouts: dict[str, Layout], schema: pa.Schema, span: tuple[int, int]
) -> Iterator[pa.RecordBatch]:
    start, stop = span
    if not layouts or start >= stop:
        return
    step = min(layout.block_rows for layout in layouts.values())
    for name, layout in layouts.items():
        _skip(members[name], layout.start + start * layout.row_bytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        columns = [
            arrow_column(next(read_rows(members[name], layout, first, last))) for name, layout in layouts.items()
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _skip(member: BinaryIO, size: int) -> None:
    while size > 0:
        skipped = len(member.read(min(size, _SKIPPED_BYTES)))
        if not skipped:
            raise EOFError("the archive ends too early")
        size -= skipped


def _layouts(file: InputFile, raw: BinaryIO) -> dict[str, Layout]:
    try:
        archive = zipfile.ZipFile(raw)
    except zipfile.BadZipFile as exc:
        raise unreadable(file, f"is no readable {_WHAT}: {exc}") from exc
    found = {}
    with archive:
        for name in archive.namelist():
            if name.endswith(_SUFFIX):
                with archive.open(name) as member:
                    found[name.removesuffix(_SUFFIX)] = _layout(file, name, cast("BinaryIO", member))
    if not found:
        raise unreadable(file, "has no array in it")
    rows = {name: layout.rows for name, layout in found.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise unreadable(file, f"has arrays of different numbers of rows: {listed}; save them in files of their own")
    return found


def _layout(file: InputFile, name: str, member: BinaryIO) -> Layout:
    try:
        return read_layout(member)
    except (ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise unreadable(file, f"has an array that can't be read, {name}: {exc}") from exc


def _schema(layouts: dict[str, Layout]) -> pa.Schema:
    return pa.schema([(name, arrow_type(layout.dtype, layout.shape)) for name, layout in layouts.items()])


def _rows(layouts: dict[str, Layout]) -> int:
    return next(iter(layouts.values())).rows
