"""The stored row of a finished request."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from headrace.contracts.errors import Cancelled, DeadlineExceeded, HeadraceError, InferenceFailed, error_from_wire
from headrace.contracts.message import Reply
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors, decode_tensors, tensors_from_json


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One row of `predictions`.

    id: the request's id as its client wrote it. outputs: named arrays, rows first; None unless it succeeded.
    error: None if it succeeded. Times are aware, in UTC; started_at is None when no model ran. batch_id, batch_rows:
    the micro-batch it ran in and how many rows that had. attempts: how often it was delivered to a worker.
    job_id, row_index: the bulk job and the row in it. cached: whether the outputs came from a cache. served_version:
    the version that a model server answered with; None where the worker ran the model.
    """

    id: str
    model: str
    version: str
    state: State
    outputs: Tensors | None
    error: HeadraceError | None
    submitted_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime
    batch_id: uuid.UUID | None
    batch_rows: int | None
    worker: str | None
    attempts: int
    cached: bool
    job_id: str | None
    row_index: int | None
    served_version: str | None = None

    def result(self) -> Tensors:
        """Return the outputs, or raise the error with which the request ended."""
        if self.error is not None:
            raise self.error
        return self.outputs or {}

    def as_reply(self, request_id: str) -> Reply:
        """Return the reply that this row stands for; its outputs stay in the store."""
        error_type, error_message = ("", "") if self.error is None else (self.error.type, self.error.message)
        return Reply(id=request_id, state=self.state, stored=True, error_type=error_type, error_message=error_message)


def prediction_of(row: sa.Row[Any]) -> Prediction:
    """Read a row that holds all columns of `predictions`."""
    request_id = row.foreign_id if row.foreign_id is not None else str(row.id)
    state = State(row.state)
    return Prediction(
        id=request_id,
        model=row.model,
        version=row.version,
        state=state,
        outputs=_outputs(row) if state is State.SUCCEEDED else None,
        error=None if state is State.SUCCEEDED else _error(row.error or {}, state, request_id),
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        batch_id=row.batch_id,
        batch_rows=row.batch_rows,
        worker=row.worker,
        attempts=row.attempts,
        cached=row.cached,
        job_id=row.job_id,
        row_index=row.row_index,
        served_version=row.served_version,
    )


def _outputs(row: sa.Row[Any]) -> Tensors:
    if row.blob is not None:
        return decode_tensors(row.blob)
    return tensors_from_json(row.outputs or {}, row.datatypes)


#: What a row without an error of its own ended with.
_ERRORS: dict[State, type[HeadraceError]] = {
    State.FAILED: InferenceFailed,
    State.EXPIRED: DeadlineExceeded,
    State.CANCELLED: Cancelled,
}


def _error(stored: Mapping[str, Any], state: State, request_id: str) -> HeadraceError:
    if "type" not in stored:
        return _ERRORS[state](request_id=request_id)
    return error_from_wire(str(stored["type"]), str(stored.get("message", "")), request_id)
