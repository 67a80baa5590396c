"""Value objects of the worker: a claimed request, how it ended, and the batches that end together."""

from __future__ import annotations

import enum
import uuid
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from headrace.contracts import HeadraceError, State, Tensors
from headrace.contracts.message import RequestHeader
from headrace.contracts.tensors.rows import RowAxes

if TYPE_CHECKING:
    from headrace.contracts import ModelPackage, Signature
    from headrace.queueing import ClaimingConsumer, Crash
    from headrace.results_store import Prediction


class ModelRef(Protocol):
    """The model of a request, as far as those who answer it need to know."""

    @property
    def queue(self) -> str:
        """The queue by which requests of the model come."""
        ...

    @property
    def package(self) -> ModelPackage:
        """The package that was loaded, or will be."""
        ...

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...


class InferenceRequest(msgspec.Struct, kw_only=True, eq=False):
    """One claimed request.

    consumer, tag: who holds the message, and what to acknowledge there.
    id: as the client wrote it; row_id: the key of its row; foreign_id: what is kept beside that key, as `contracts.ids`
    says. deadline: monotonic seconds, or None.
    submitted_at: seconds since 1970 (of arrival here, for clients that don't say). attempts: 1 for the first delivery.
    redelivered: it came back from a worker that died or lost its lease, and may have ended there.
    deaths: workers that died while they ran it; with any, it is a suspect and runs alone. retries: how often it was put
    off after a failure that may pass.
    celery_result: whether a plain Celery client waits for a result in Redis. traced: shown in Flower one by one.
    size_bytes: of its inputs, as they were sent.
    """

    id: str
    row_id: uuid.UUID
    model: str
    served: ModelRef | None
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
    foreign_id: str | None = None
    traced: bool = False
    redelivered: bool = False
    deaths: tuple[Crash, ...] = ()
    retries: int = 0
    size_bytes: int = 0


class DeadLetterReason(msgspec.Struct, kw_only=True, eq=False):
    """Why a message goes to the dead letters, and what happened before, oldest first.

    answer: the reply to a request that has no row, and for how many seconds it is kept where its client finds it.
    """

    reason: str
    history: list[str]
    answer: tuple[bytes, int] | None = None


class RowForm(enum.Enum):
    """How much of an outcome its row holds; less each time that the store refused it."""

    FULL = enum.auto()
    #: State and error, the latter as plain text; nothing that the client chose but the id.
    REDUCED = enum.auto()
    #: There is no row.
    NONE = enum.auto()


class Outcome(msgspec.Struct, kw_only=True, eq=False):
    """How one request ended without outputs: failed, expired or cancelled.

    dead_letter: its message is not forgotten but goes to the dead letters. refusal: why Postgres refused a fuller row.
    """

    request: InferenceRequest
    state: State
    error: HeadraceError
    dead_letter: DeadLetterReason | None = None
    form: RowForm = RowForm.FULL
    refusal: str = ""


class AlreadyStored(msgspec.Struct, kw_only=True, eq=False):
    """A request that was delivered again after it had ended, and its row."""

    request: InferenceRequest
    prediction: Prediction


#: A message that was read: its request, and how that ends without a run; None if it can run.
Parsed: TypeAlias = tuple[InferenceRequest, Outcome | None]


class Deferred(msgspec.Struct, kw_only=True, eq=False):
    """A request that waits in the server before it is tried again.

    is_retry: it failed for a reason that may pass, which counts; else its time has not come.
    """

    request: InferenceRequest
    delay_s: float
    is_retry: bool = True


class Run(msgspec.Struct, kw_only=True, eq=False):
    """Requests that succeeded together: the outputs hold their rows one after the other, in this order.

    axes: where each output holds its rows. binary: stored as tensors, since Postgres refused them as JSON;
    refusal: why it did. served_version: that a model server answered with, "" where the worker ran the model.
    """

    requests: list[InferenceRequest]
    outputs: Tensors
    axes: RowAxes
    binary: bool = False
    refusal: str = ""
    served_version: str = ""

    @property
    def rows(self) -> list[int]:
        """How many rows each request has."""
        return [request.rows for request in self.requests]

    def pieces(self) -> list[Tensors]:
        """Return the outputs of each request; views, no copies."""
        return self.axes.split(self.outputs, self.rows)

    def apart(self) -> list[Run]:
        """Return a run of each request alone."""
        pairs = zip(self.requests, self.pieces(), strict=True)
        return [msgspec.structs.replace(self, requests=[request], outputs=piece) for request, piece in pairs]


class FinishedBatch(msgspec.Struct, kw_only=True, eq=False):
    """All that the outbox must store, answer and acknowledge together.

    served, batch_id, reason: None for requests that never reached a model. Times are seconds since 1970;
    seconds: what the model took. dependence: how a request's outputs were found to depend on those beside it; "" if
    they weren't.
    """

    served: ModelRef | None
    batch_id: uuid.UUID | None
    rows: int
    reason: str
    started_at: float
    finished_at: float
    seconds: float
    runs: list[Run]
    outcomes: list[Outcome]
    deferred: list[Deferred] = []
    already_stored: list[AlreadyStored] = []
    dependence: str = ""

    @property
    def requests(self) -> int:
        """How many requests ended here."""
        return sum(len(run.requests) for run in self.runs) + len(self.outcomes)


def tags_by_consumer(requests: list[InferenceRequest]) -> dict[str, list[str]]:
    """Return the tags of requests by who holds them: nearly always one consumer, two after a reconnection."""
    first = requests[0].consumer
    tags = [request.tag for request in requests if request.consumer is first]
    found = {first.id: tags}
    if len(tags) < len(requests):
        for request in requests:
            if request.consumer is not first:
                found.setdefault(request.consumer.id, []).append(request.tag)
    return found
