"""Predictions of a shard, stored in the transaction that completes it; those that Postgres refuses are named."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import Final

import psycopg

from headrace.results_store.database.bounded import BoundedConnection
from headrace.results_store.database.errors import StoreRejected, primary_message
from headrace.results_store.writing.columns import (
    BLOB,
    ID,
    NAMES,
    OUTPUTS,
    Columns,
    copy_stream,
    encode_columns,
    find_unencodable,
    row_id,
    slice_columns,
)
from headrace.results_store.writing.error_causes import Bisection, is_data_error
from headrace.results_store.writing.rows import BatchRows

_COPY: Final = f"COPY predictions ({', '.join(NAMES)}) FROM STDIN (FORMAT binary)"

#: Pieces of several rows are cut below this size when the refused ones are looked for.
_PIECE_BYTES: Final = 32 << 20

#: SQLSTATE of a number that does not fit its column: such rows are refused here, Postgres never sees them.
_OUT_OF_RANGE: Final = "22003"


def encoded(predictions: Sequence[BatchRows]) -> Columns:
    """Return predictions as `copy_predictions` takes them. Raises StoreRejected when a number fits no column."""
    try:
        return encode_columns(predictions)
    except (struct.error, ValueError, OverflowError) as exc:
        bad = find_unencodable(predictions)
        refused = {row.id: _OUT_OF_RANGE for row, _ in bad}
        raise StoreRejected(refused, f"a number does not fit its column: {bad[0][1]}") from exc


def copy_predictions(connection: BoundedConnection, columns: Columns) -> None:
    """Write predictions in the caller's transaction, which is over when StoreRejected is raised."""
    if not columns[ID]:
        return
    try:
        with connection.transaction():
            _copy(connection, columns)
    except psycopg.Error as exc:
        if not is_data_error(exc.sqlstate or ""):
            raise
        refused = _refused(connection, columns)
        if not refused:
            raise
        message = f"Postgres refuses {len(refused)} row(s): {primary_message(exc)}"
        raise StoreRejected(refused, message) from exc


def _refused(connection: BoundedConnection, columns: Columns) -> dict[uuid.UUID, str]:
    """Return the rows that can't be written, with the SQLSTATE. The others are written, for the caller to undo."""
    pairs = zip(columns[OUTPUTS], columns[BLOB], strict=True)
    search = Bisection([len(outputs) + len(blob) for outputs, blob in pairs], _PIECE_BYTES)
    refused = {}
    while (piece := search.following()) is not None:
        try:
            with connection.transaction():
                _copy(connection, slice_columns(columns, *piece))
        except psycopg.Error as exc:
            if not is_data_error(exc.sqlstate or ""):
                raise
            row = search.refused()
            if row is not None:
                refused[row_id(columns, row)] = str(exc.sqlstate)
    return refused


def _copy(connection: BoundedConnection, columns: Columns) -> None:
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for piece in copy_stream(columns):
            copy.write(piece)
