"""The parser of JSON lines: pyarrow reads a piece at once; where a line doesn't fit, each is read by itself. Pure.

Both ways take the same rows: what pyarrow reads, the slow way reads to the same values.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from headrace.bulk.sources.base import no_rows
from headrace.bulk.sources.projection import Projection
from headrace.bulk.sources.text.cells import Cells
from headrace.bulk.sources.text.json_types import ANY_JSON, row_type
from headrace.bulk.sources.text.pieces import Piece

_OPEN: Final = ord("{")
_CLOSE: Final = ord("}")
_RETURN: Final = ord("\r")
_NEWLINE: Final = ord("\n")


class JsonParser:
    """Parses pieces of one file into columns of fixed types. A missing key is null; a key given twice counts last."""

    def __init__(self, stored: pa.Schema, projection: Projection) -> None:
        """stored: columns of the rows, of which the projection makes those that are delivered."""
        self.schema = projection.schema
        self._stored = stored
        self._projection = projection
        self._row_type = row_type(stored)
        self._decoder = msgspec.json.Decoder(self._row_type)
        self._is_plain = ANY_JSON not in stored.types
        self._parse = pajson.ParseOptions(
            explicit_schema=stored, newlines_in_values=False, unexpected_field_behavior="ignore"
        )

    def parse(self, piece: Piece) -> Cells:
        """Return the cells of a piece."""
        table = self._at_once(piece)
        if table is not None:
            return Cells(self._projection.apply(table), np.arange(piece.rows), {})
        return self._one_by_one(piece)

    def _at_once(self, piece: Piece) -> pa.RecordBatch | None:
        if not self._is_plain or not _are_objects(piece) or not _is_text(piece.data):
            return None
        options = pajson.ReadOptions(use_threads=False, block_size=len(piece.data) + 1)
        try:
            table = pajson.read_json(pa.BufferReader(piece.data), options, self._parse)
        except pa.ArrowException:
            return None
        if table.num_rows != piece.rows:
            return None
        (batch,) = table.combine_chunks().to_batches()
        return batch

    def _one_by_one(self, piece: Piece) -> Cells:
        rows, good, bad = [], [], {}
        for at, (start, stop) in enumerate(zip(piece.starts.tolist(), piece.stops.tolist(), strict=True)):
            try:
                rows.append(self._decode(piece.data[start:stop]))
            except (ValueError, RecursionError) as exc:
                bad[at] = _reason(exc)
            else:
                good.append(at)
        places = np.array(good, np.int64)
        if not rows:
            return Cells(no_rows(self.schema), places, bad)
        columns = [_column([row.get(field.name) for row in rows], field.type) for field in self._stored]
        table = pa.RecordBatch.from_arrays(columns, schema=self._stored)
        return Cells(self._projection.apply(table), places, bad)

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            return self._decoder.decode(line)  # type: ignore[no-any-return]
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            if b"NaN" not in line and b"Infinity" not in line:
                raise
            # Python writes them, and pyarrow reads them.
            return msgspec.convert(json.loads(line), self._row_type)  # type: ignore[no-any-return]


def _are_objects(piece: Piece) -> bool:
    """Return whether each line begins and ends as an object does, so that as many rows as lines are one a line."""
    octets = np.frombuffer(piece.data, np.uint8)
    last = piece.stops - 1
    for end in (_NEWLINE, _RETURN):
        last = last - (octets[last] == end)
    return bool((octets[piece.starts] == _OPEN).all() and (octets[last] == _CLOSE).all())


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == ANY_JSON:
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(values, kind)


def _reason(exc: Exception) -> str:
    if isinstance(exc, msgspec.ValidationError):
        return f"the line is not like most others: {exc}".replace(" | null", "")
    return f"the line is no valid JSON: {exc or type(exc).__name__}"
