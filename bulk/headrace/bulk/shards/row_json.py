"""A row of a table as JSON, for the list of bad rows."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
import pyarrow as pa

#: No more of a row is kept with its error.
MOST_BYTES: Final = 64 << 10

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def row_as_json(table: pa.RecordBatch, at: int) -> bytes:
    """Return a row as a JSON object, binary values in base64; long values are cut, to MOST_BYTES in all."""
    values = {name: _short(table.column(name)[at].as_py()) for name in dict.fromkeys(table.schema.names)}
    text = _encode(values)
    return text if len(text) <= MOST_BYTES else text[: MOST_BYTES - 1]


def _short(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value[: MOST_BYTES // 2]).decode()
    if isinstance(value, str):
        return value[: MOST_BYTES // 2]
    return value
