"""Rows as Postgres reads them in its binary protocol: one list of elements a column.

An element is its length (4 bytes, big-endian; -1 is NULL) and its bytes. The elements of one column joined behind a
header are an array parameter (`array_parameters`); those of one row joined are a tuple of binary COPY (`copy_stream`).
Encoding this way costs a third of the CPU of psycopg's own adaptation, and all but vanishes for the columns that
every row of a batch shares.

Sources: https://www.postgresql.org/docs/18/sql-copy.html ("Binary Format"); `array_recv` in Postgres's arrayfuncs.c.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Final, TypeAlias, TypeVar

from headrace.results_store.writing.rows import BatchRows, Row

#: One list of encoded elements for each of `NAMES`; all of one length, the number of rows.
Columns: TypeAlias = list[list[bytes]]

#: Type of each column that is written: name → (name of its type, OID of its type).
_TYPES: Final[dict[str, tuple[str, int]]] = {
    "id": ("uuid", 2950),
    "submitted_at": ("timestamptz", 1184),
    "started_at": ("timestamptz", 1184),
    "finished_at": ("timestamptz", 1184),
    "row_index": ("bigint", 20),
    "batch_id": ("uuid", 2950),
    "batch_rows": ("integer", 23),
    "attempts": ("integer", 23),
    "cached": ("boolean", 16),
    "state": ("text", 25),
    "model": ("text", 25),
    "version": ("text", 25),
    "outputs": ("jsonb", 3802),
    "datatypes": ("text", 25),
    "blob": ("bytea", 17),
    "error": ("jsonb", 3802),
    "worker": ("text", 25),
    "job_id": ("text", 25),
    "foreign_id": ("text", 25),
    "served_version": ("text", 25),
}

NAMES: Final = tuple(_TYPES)

#: Positions in `Columns` of those columns that are read again once they are encoded.
ID: Final = NAMES.index("id")
OUTPUTS: Final = NAMES.index("outputs")
BLOB: Final = NAMES.index("blob")

#: Bytes of the length before the value of each element.
_LENGTH_BYTES: Final = 4

#: SQL that turns the array parameters `$1`, `$2`, ... back into rows, in lockstep. In the select list it streams;
#: `FROM unnest(...)` would first copy every array into a tuple store.
UNNEST: Final = ", ".join(f"unnest(${at}::{kind}[])" for at, (kind, _) in enumerate(_TYPES.values(), 1))

#: 2000-01-01, from which Postgres counts microseconds.
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000

_NULL: Final = b"\xff\xff\xff\xff"
_length = struct.Struct(">i").pack
_integer = struct.Struct(">ii").pack
_bigint = struct.Struct(">iq").pack
#: jsonb travels as text behind the number of its format, 1.
_json_prefix = struct.Struct(">ib").pack
_array_header = struct.Struct(">iiIii").pack

_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END: Final = b"\xff\xff"
_COPY_FIELDS: Final = struct.pack(">h", len(_TYPES))

#: Rows of one piece of a COPY stream: enough that pieces cost nothing, few enough that a piece stays small.
_COPY_PIECE_ROWS: Final = 256

T = TypeVar("T")


def microseconds(unix_seconds: float) -> int:
    """Return a time in the store's resolution. Raises ValueError or OverflowError when it is not finite."""
    return round(unix_seconds * 1_000_000)


def encode_columns(batches: Iterable[BatchRows]) -> Columns:
    """Encode the rows of all batches, in order.

    Raises struct.error, ValueError or OverflowError when a number does not fit its column.
    """
    parts = [_encode_batch(batch) for batch in batches if batch.rows]
    if len(parts) == 1:
        return parts[0]
    return [list(chain.from_iterable(column)) for column in zip(*parts, strict=True)] if parts else [[] for _ in NAMES]


def _encode_batch(batch: BatchRows) -> Columns:
    rows = batch.rows
    count = len(rows)
    prefix = _length(16)
    # In the order of `NAMES`.
    return [
        [prefix + row.id.bytes for row in rows],
        _nullable(_time, [row.submitted_at for row in rows]),
        [_optional(_time, batch.started_at)] * count,
        [_time(batch.finished_at)] * count,
        _nullable(_int8, [row.row_index for row in rows]),
        [_optional(_uuid, batch.batch_id)] * count,
        [_optional(_int4, batch.batch_rows)] * count,
        [_integer(4, row.attempts) for row in rows],
        [_length(1) + bytes([batch.cached])] * count,
        _repetitive([row.state for row in rows]),
        [_text(batch.model)] * count,
        [_text(batch.version)] * count,
        _nullable(_json, [row.outputs for row in rows]),
        _repetitive([row.datatypes for row in rows]),
        _nullable(_bytes, [row.blob for row in rows]),
        _nullable(_json, [row.error for row in rows]),
        [_optional(_text, batch.worker)] * count,
        _nullable(_text, [row.job_id for row in rows]),
        _nullable(_text, [row.foreign_id for row in rows]),
        _nullable(_text, [row.served_version for row in rows]),
    ]


def _nullable(encode: Callable[[T], bytes], values: list[T | None]) -> list[bytes]:
    # Most columns of most batches are all NULL; counting is far cheaper than looking at each in Python.
    if values.count(None) == len(values):
        return [_NULL] * len(values)
    return [_NULL if value is None else encode(value) for value in values]


def _repetitive(values: list[str]) -> list[bytes]:
    """Encode texts that are mostly all the same within a batch."""
    first = values[0]
    if values.count(first) == len(values):
        return [_text(first)] * len(values)
    return [_text(value) for value in values]


def _optional(encode: Callable[[T], bytes], value: T | None) -> bytes:
    return _NULL if value is None else encode(value)


def _time(unix_seconds: float) -> bytes:
    return _bigint(8, round(unix_seconds * 1_000_000) - _POSTGRES_EPOCH_US)


def _int8(value: int) -> bytes:
    return _bigint(8, value)


def _int4(value: int) -> bytes:
    return _integer(4, value)


def _uuid(value: uuid.UUID) -> bytes:
    return _length(16) + value.bytes


def _text(value: str) -> bytes:
    # A lone surrogate, which UTF-8 can't hold, must not sink the batch.
    raw = value.encode("utf-8", "replace")
    return _length(len(raw)) + raw


def _bytes(value: bytes) -> bytes:
    return _length(len(value)) + value


def _json(value: bytes) -> bytes:
    return _json_prefix(len(value) + 1, 1) + value


def slice_columns(columns: Columns, start: int, stop: int) -> Columns:
    """Return the rows from `start` to before `stop`."""
    return [column[start:stop] for column in columns]


def encoded_bytes(columns: Columns) -> int:
    """Return how many bytes the variable-size columns `outputs` and `blob` take."""
    return sum(map(len, columns[OUTPUTS])) + sum(map(len, columns[BLOB]))


def row_id(columns: Columns, row: int) -> uuid.UUID:
    """Return the id of an encoded row."""
    return uuid.UUID(bytes=columns[ID][row][_LENGTH_BYTES:])


def array_parameters(columns: Columns) -> list[bytes]:
    """Return the parameters of `UNNEST`: one binary array a column."""
    count = len(columns[ID])
    return [
        # One dimension; "may hold NULL" (the server finds out by itself); the type; its length; lower bound 1.
        _array_header(1, 1, oid, count, 1) + b"".join(column)
        for (_, oid), column in zip(_TYPES.values(), columns, strict=True)
    ]


def copy_stream(columns: Columns) -> Iterator[bytes]:
    """Yield the pieces of a binary COPY of these rows."""
    yield _COPY_HEADER
    for start in range(0, len(columns[ID]), _COPY_PIECE_ROWS):
        piece: Sequence[list[bytes]] = slice_columns(columns, start, start + _COPY_PIECE_ROWS)
        yield b"".join(chain.from_iterable(zip(repeat(_COPY_FIELDS), *piece, strict=False)))
    yield _COPY_END


def find_unencodable(batches: Iterable[BatchRows]) -> list[tuple[Row, str]]:
    """Return the rows that `encode_columns` can't encode, each with the reason."""
    found = []
    for batch in batches:
        for row in batch.rows:
            try:
                _encode_batch(_single_row(batch, row))
            except (struct.error, ValueError, OverflowError) as exc:
                found.append((row, str(exc)))
    return found


def _single_row(batch: BatchRows, row: Row) -> BatchRows:
    return BatchRows(
        model=batch.model,
        version=batch.version,
        rows=[row],
        finished_at=batch.finished_at,
        started_at=batch.started_at,
        batch_rows=batch.batch_rows,
    )
