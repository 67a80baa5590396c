"""Where a part writer comes from: its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from headrace.bulk.sinks.base import PartFormat, PartWriter
from headrace.bulk.sinks.formats.parquet import ParquetPart


def open_part(kind: PartFormat, path: Path, schema: pa.Schema, metadata: Mapping[str, str] = {}) -> PartWriter:
    """Return a writer of rows of a schema to a local file. path: of the file once it is whole; its folder exists.

    metadata: for formats that have a place for it (Parquet). Raises StorageUnavailable when the disk is full.
    """
    if kind != "parquet":
        raise NotImplementedError(kind)
    return ParquetPart(path, schema, metadata)
