"""Parts in Parquet: zstd, row groups of one size whatever the batches are, metadata in the footer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bulk.sinks.formats.scratch import ScratchPart

#: Rows after which a row group ends. Readers split work and skip by row groups; the writer holds one in memory.
ROW_GROUP_ROWS: Final = 65_536

#: Bytes in memory after which a row group ends, which bounds what the writer holds of wide rows.
ROW_GROUP_BYTES: Final = 16 << 20

#: Level 3 is zstd's default; higher ones take seconds of a part for a few percent.
ZSTD_LEVEL: Final = 3


class ParquetPart(ScratchPart):
    """A part in Parquet."""

    def __init__(self, path: Path, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        """metadata: goes into the key-values of the footer."""
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._sink: Any = None
        self._writer: Any = None
        super().__init__(path, schema, metadata)

    def _open(self, path: Path) -> None:
        leaves = list(_leaves(self._schema))
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            use_dictionary=[name for name, kind, _ in leaves if not pa.types.is_floating(kind)],
            write_statistics=[name for name, _, listed in leaves if not listed],
        )

    def _write(self, batch: pa.RecordBatch) -> None:
        self._pend([batch])
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= ROW_GROUP_BYTES:
            table = self._taken()
            fitting = max(table.num_rows * ROW_GROUP_BYTES // max(table.nbytes, 1), 1)
            group = min(ROW_GROUP_ROWS, fitting)
            whole = table.num_rows // group * group
            self._writer.write_table(table.slice(0, whole), row_group_size=group)
            self._pend(table.slice(whole).to_batches())

    def _pend(self, batches: list[pa.RecordBatch]) -> None:
        self._pending.extend(batches)
        self._pending_rows += sum(batch.num_rows for batch in batches)
        self._pending_bytes += sum(batch.nbytes for batch in batches)

    def _taken(self) -> pa.Table:
        table = pa.Table.from_batches(self._pending, self._schema)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        return table

    def _finish(self) -> None:
        if self._pending_rows:
            self._writer.write_table(self._taken(), row_group_size=ROW_GROUP_ROWS)
        self._writer.add_key_value_metadata(self._metadata)
        self._writer.close()
        self._sink.close()

    def _discard(self) -> None:
        self._pending = []
        writer, sink, self._writer, self._sink = self._writer, self._sink, None, None
        try:
            if writer is not None:
                writer.close()
        finally:
            if sink is not None:
                sink.close()

    def _size(self) -> int:
        return int(self._sink.tell()) + self._pending_bytes


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType, bool]]:
    """Yield the columns of a Parquet file of a schema: path, type, and whether it lies inside of a list or map."""
    for field in schema:
        yield from _below(field.name, field.type, False)


def _below(path: str, kind: pa.DataType, listed: bool) -> Iterator[tuple[str, pa.DataType, bool]]:
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _below(f"{path}.{field.name}", field.type, listed)
    elif pa.types.is_map(kind):
        yield from _below(f"{path}.key_value.key", kind.key_type, True)
        yield from _below(f"{path}.key_value.value", kind.item_type, True)
    elif hasattr(kind, "value_field"):
        yield from _below(f"{path}.list.element", kind.value_type, True)
    elif pa.types.is_dictionary(kind):
        yield from _below(path, kind.value_type, listed)
    else:
        yield path, kind, listed
