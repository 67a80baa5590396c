"""A request inside the worker: what was claimed, and how it ended."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import msgspec

from headrace.contracts import HeadraceError, State, Tensors
from headrace.contracts.ids import foreign_id
from headrace.contracts.message import RequestHeader

if TYPE_CHECKING:
    from headrace.queueing import ClaimingConsumer
    from headrace.workers.lane import Lane


class InferenceRequest(msgspec.Struct, kw_only=True, eq=False):
    """One claimed request.

    consumer, tag: who holds the message, and what to acknowledge there.
    id: as the client wrote it; row_id: the key of its row. deadline: monotonic seconds, or None.
    submitted_at: seconds since 1970 (of arrival here, for clients that don't say). attempts: 1 for the first delivery.
    celery_result: whether a plain Celery client waits for a result in Redis. traced: shown in Flower one by one.
    """

    id: str
    row_id: uuid.UUID
    model: str
    lane: Lane | None
    consumer: ClaimingConsumer
    tag: str
    header: RequestHeader
    inputs: Tensors
    rows: int
    priority: int
    deadline: float | None
    submitted_at: float
    attempts: int
    celery_result: bool
    note: str
    traced: bool = False

    @property
    def foreign_id(self) -> str | None:
        """The client's id where it is not the row's key itself."""
        return foreign_id(self.id)


class Outcome(msgspec.Struct, kw_only=True, eq=False):
    """How one request ended without outputs: failed, expired or cancelled."""

    request: InferenceRequest
    state: State
    error: HeadraceError


class Run(msgspec.Struct, kw_only=True, eq=False):
    """Requests that succeeded together: the outputs hold their rows one after the other, in this order."""

    requests: list[InferenceRequest]
    outputs: Tensors


class FinishedBatch(msgspec.Struct, kw_only=True, eq=False):
    """All that the outbox must store, answer and acknowledge together.

    lane, batch_id, reason: None for requests that never reached a model. Times are seconds since 1970;
    seconds: what the model took.
    """

    lane: Lane | None
    batch_id: uuid.UUID | None
    rows: int
    reason: str
    started_at: float
    finished_at: float
    seconds: float
    runs: list[Run]
    outcomes: list[Outcome]

    @property
    def requests(self) -> int:
        """How many requests ended here."""
        return sum(len(run.requests) for run in self.runs) + len(self.outcomes)
