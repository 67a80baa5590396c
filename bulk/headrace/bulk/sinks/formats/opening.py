"""Where a part writer comes from: its format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from headrace.bulk.sinks.base import PartFormat, PartWriter
from headrace.bulk.sinks.formats.csv import CsvPart
from headrace.bulk.sinks.formats.jsonl import JsonLinesPart
from headrace.bulk.sinks.formats.openai import OpenAIPart
from headrace.bulk.sinks.formats.parquet import ParquetPart
from headrace.contracts.jobs import ScoreSpec


def part_format(spec: ScoreSpec) -> PartFormat:
    """Return the format of a job's parts: JSON lines about an OpenAI batch are the lines of its output file."""
    return "openai" if spec.format == "jsonl" and spec.input_format == "openai" else spec.format


def open_part(kind: PartFormat, path: Path, schema: pa.Schema, metadata: Mapping[str, str] = {}) -> PartWriter:
    """Return a writer of rows of a schema to a local file. path: of the file once it is whole; its folder exists.

    metadata: of a `PartIdentity`; Parquet keeps it, OpenAI's lines are made of its job and model, so that they are
    needed here and not only when the part is closed; the other formats have no place.
    Raises StorageUnavailable when the disk is full.
    """
    match kind:
        case "parquet":
            return ParquetPart(path, schema, metadata)
        case "csv":
            return CsvPart(path, schema)
        case "jsonl":
            return JsonLinesPart(path, schema)
        case "openai":
            return OpenAIPart(path, schema, metadata)
