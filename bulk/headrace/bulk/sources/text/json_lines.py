"""JSON lines: segments of whole lines are the units; columns have the types that most rows of a sample have.

One line that is no JSON object, or has a value of another type, is one bad row. A column whose values are of no one
type, or all null in the sample, is delivered as JSON text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa

from headrace.bulk.sources.base import Files, RowBatch, Unit
from headrace.bulk.sources.projection import project
from headrace.bulk.sources.reading import readable, unreadable, within
from headrace.bulk.sources.text.blocks import blocks, compression_of
from headrace.bulk.sources.text.cells import Parser, parsed
from headrace.bulk.sources.text.json_parser import JsonParser
from headrace.bulk.sources.text.json_types import ANY_JSON, guess_schema, read_type
from headrace.bulk.sources.text.openai_parser import SCHEMA, OpenAiParser
from headrace.bulk.sources.text.pieces import MAX_ROW_BYTES, Cutter, split_lines
from headrace.bulk.sources.text.segments import segments
from headrace.results_store.jobs.records import InputFile, Slice

#: A guess looks at so much of the beginning of a file, and at less in the middle and at the end: numbers may all be 0
#: for long. Read again for each shard unless the types are known.
HEAD_BYTES: Final = 128 << 10
SAMPLE_BYTES: Final = 64 << 10

_WHAT: Final = "file of JSON lines"
_BOM: Final = b"\xef\xbb\xbf"


class JsonLines:
    """The source for files with a JSON object in each line."""

    def __init__(self, types: pa.Schema | None = None, limit: int = MAX_ROW_BYTES) -> None:
        """types: of columns, as far as they are known; others are guessed. limit: bytes of a line."""
        self._types = types or pa.schema([])
        self._limit = limit

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:
        """Return names and types of the columns of a sample."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            return self._guess(file, raw)

    def units(self, file: InputFile, storage: Files) -> Iterator[Unit]:
        """Yield segments of whole lines, in one pass over the file; a compressed file is one unit, which isn't read."""
        if compression_of(file.uri):
            yield Unit(number=0, first_row=0, rows=-1, size_bytes=file.size)
            return
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            start = len(_BOM) if raw.read(len(_BOM)) == _BOM else 0
            cutter = Cutter(split_lines, limit=self._limit)
            yield from segments(cutter.pieces(blocks(raw, file.uri, start)), start)

    def read(self, file: InputFile, part: Slice, storage: Files, columns: Sequence[str] | None) -> Iterator[RowBatch]:
        """Yield the rows of a slice."""
        with readable(file, _WHAT), storage.open(file.uri, etag=file.etag) as raw:
            parser = self._parser(file, raw, columns)
            is_start = part.byte_start == 0 or bool(compression_of(file.uri))
            line = 1 if is_start else part.range_line
            cutter = Cutter(split_lines, 0 if is_start else part.range_row, line, self._limit)
            stream = blocks(raw, file.uri, part.byte_start, part.byte_stop)
            pieces = cutter.pieces(_without_bom(stream) if is_start else stream)
            yield from within(part, parsed(file, part, pieces, parser))

    def _parser(self, file: InputFile, raw: BinaryIO, columns: Sequence[str] | None) -> Parser:
        known = self._known()
        if columns is None or any(not {name, name.partition(".")[0]} & set(known.names) for name in columns):
            guess = self._guess(file, raw)
            if not guess.names:  # no row, or none with a key
                guess = pa.schema([(name, ANY_JSON) for name in columns or ()])
            known = pa.schema([*known, *(field for field in guess if field.name not in known.names)])
        projection = project(known, columns, file.uri)
        stored = dict.fromkeys(name if name in known.names else name.partition(".")[0] for name in projection.stored)
        return JsonParser(pa.schema([known.field(name) for name in stored]), projection)

    def _known(self) -> pa.Schema:
        """Return the columns whose types are given, as they are read."""
        read = [(field.name, read_type(field.type)) for field in self._types]
        return pa.schema([(name, kind) for name, kind in read if kind is not None])

    def _guess(self, file: InputFile, raw: BinaryIO) -> pa.Schema:
        lines = list(self._sample(file, raw))
        start = lines[0].lstrip() if lines else b""
        if start.startswith(b"["):
            raise unreadable(file, "is a JSON array; write each of its objects in a line of its own")
        rows = [row for line in lines if isinstance(row := _any_json(line), dict)]
        if lines and not rows:
            raise unreadable(file, "has no JSON object in any of its first lines; write one object a line")
        return guess_schema(rows)

    def _sample(self, file: InputFile, raw: BinaryIO) -> Iterator[bytes]:
        head = b""
        packed = bool(compression_of(file.uri))
        stream = blocks(raw, file.uri) if packed else _growing(raw, file.uri)
        for block in stream:
            head += block
            if len(head) >= HEAD_BYTES and (b"\n" in head or len(head) > self._limit):
                break
        whole = len(head) < HEAD_BYTES
        lines = [line for line in head.removeprefix(_BOM).split(b"\n") if line.strip()]
        yield from lines if whole or len(lines) == 1 else lines[:-1]
        if whole or packed:
            return
        for start in (file.size // 2, file.size - SAMPLE_BYTES):
            raw.seek(max(start, 0))
            yield from raw.read(SAMPLE_BYTES).split(b"\n")[1:-1]


def _growing(raw: BinaryIO, uri: str) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks of which the first is all that most files need to be sampled."""
    yield from blocks(raw, uri, 0, HEAD_BYTES)
    yield from blocks(raw, uri, HEAD_BYTES)


def _any_json(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None


def _without_bom(stream: Iterator[bytes]) -> Iterator[bytes]:
    yield next(stream, b"").removeprefix(_BOM)
    yield from stream


class OpenAiBatch(JsonLines):
    """The source for OpenAI batch files: requests in JSON lines, whose `custom_id` is kept."""

    def schema(self, file: InputFile, storage: Files) -> pa.Schema:  # noqa: ARG002
        """Return the columns that requests have."""
        return SCHEMA

    def _parser(self, file: InputFile, raw: BinaryIO, columns: Sequence[str] | None) -> Parser:  # noqa: ARG002
        return OpenAiParser(project(SCHEMA, columns, file.uri))
