"""Finished batches and their rows, already encoded, as a worker passes them to the store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec
import orjson

from headrace.contracts.errors import HeadraceError
from headrace.contracts.message import Reply


class Row(msgspec.Struct, kw_only=True, gc=False):
    """One finished request.

    id: of `contracts.ids.row_id`; foreign_id: the request's own id where it is another string. state: a `State`.
    outputs: JSON text of `tensors_to_json`; or blob: `encode_tensors`. datatypes: `datatypes_line` of the outputs.
    error: JSON text of `error_json`. submitted_at: seconds since 1970. served_version: that a model server answered
    with, besides the version of the package.
    """

    id: uuid.UUID
    state: str
    outputs: bytes | None = None
    datatypes: str = ""
    blob: bytes | None = None
    error: bytes | None = None
    submitted_at: float | None = None
    attempts: int = 1
    job_id: str | None = None
    row_index: int | None = None
    foreign_id: str | None = None
    served_version: str | None = None


class Conflict(msgspec.Struct, kw_only=True):
    """A row that was there before: how its request ended. error_type, error_message: "" when it succeeded."""

    id: uuid.UUID
    state: str
    error_type: str = ""
    error_message: str = ""

    def as_reply(self, request_id: str) -> Reply:
        """Return the reply that this row stands for; its outputs stay in the store."""
        return Reply(
            id=request_id,
            state=self.state,
            stored=True,
            error_type=self.error_type,
            error_message=self.error_message,
        )


class BatchRows(msgspec.Struct, kw_only=True):
    """The rows of one micro-batch, and what they have in common.

    batch_id, batch_rows: the micro-batch that ran and how many rows it had; None for requests that never ran.
    started_at, finished_at: seconds since 1970. cached: whether the outputs came from a cache.
    """

    model: str
    version: str
    rows: Sequence[Row]
    finished_at: float
    started_at: float | None = None
    batch_id: uuid.UUID | None = None
    batch_rows: int | None = None
    worker: str | None = None
    cached: bool = False


def error_json(error: HeadraceError) -> bytes:
    """Write an error as the column `error` holds it: `{"type": ..., "message": ...}`."""
    return orjson.dumps({"type": error.type, "message": error.message})
