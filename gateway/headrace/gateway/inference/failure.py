"""The ways in which a request ends without an answer, few enough for every protocol to have a status for each."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from headrace.contracts.errors import (
    BrokerUnavailable,
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    InferenceFailed,
    InputRefused,
    InvalidRequest,
    ModelOutOfMemory,
    PayloadTooLarge,
    QueueFull,
    RequestLost,
    ResultTimeout,
    RuntimeTrouble,
    SignatureMismatch,
    StoreUnavailable,
    UnknownModel,
)


class Kind(StrEnum):
    """Why there is no answer. Values are the kinds of problems over HTTP."""

    INVALID = "invalid-request"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_REQUEST = "unknown-request"
    INPUT = "invalid-input"
    TOO_LARGE = "too-large"
    QUEUE_FULL = "queue-full"
    NO_WORKER = "no-worker"
    MODEL_UNAVAILABLE = "model-unavailable"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    LOST = "lost"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAILED = "inference-failed"
    CONFIGURATION = "configuration"


#: Error → kind. The first class that an error is an instance of decides, so subclasses come first.
_KINDS: Final[tuple[tuple[type[HeadraceError], Kind], ...]] = (
    (UnknownModel, Kind.UNKNOWN_MODEL),
    (SignatureMismatch, Kind.INPUT),
    (PayloadTooLarge, Kind.TOO_LARGE),
    (InvalidRequest, Kind.INVALID),
    (QueueFull, Kind.QUEUE_FULL),
    (DeadlineExceeded, Kind.DEADLINE),
    (ResultTimeout, Kind.DEADLINE),
    (Cancelled, Kind.CANCELLED),
    (InputRefused, Kind.INPUT),
    (ModelOutOfMemory, Kind.TOO_LARGE),
    (RuntimeTrouble, Kind.UNAVAILABLE),
    (InferenceFailed, Kind.FAILED),
    (RequestLost, Kind.LOST),
    (BrokerUnavailable, Kind.UNAVAILABLE),
    (StoreUnavailable, Kind.UNAVAILABLE),
)

#: When a client may try again; as long as a worker or a server takes to start, and no client waits much longer.
_RETRY_S: Final = {
    Kind.QUEUE_FULL: 1.0,
    Kind.NO_WORKER: 5.0,
    Kind.MODEL_UNAVAILABLE: 5.0,
    Kind.UNAVAILABLE: 2.0,
    Kind.DRAINING: 1.0,
    Kind.LOST: 1.0,
}


class Failure(Exception):
    """A request without an answer. message: one line with cause and remedy. request_id: of the row, "" before one.

    field: the part of the request that is wrong, in the protocol's words; "" where it isn't one.
    """

    def __init__(self, kind: Kind, message: str, request_id: str = "") -> None:
        """retry_after_s comes from the kind."""
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.request_id = request_id
        self.field = ""

    @property
    def retry_after_s(self) -> float | None:
        """When to try again; None where the same request would fail the same way."""
        return _RETRY_S.get(self.kind)


def failure_of(error: HeadraceError, request_id: str = "") -> Failure:
    """Return an error as one of the few kinds."""
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), Kind.CONFIGURATION)
    return Failure(kind, error.message, error.request_id or request_id)


def input_named(message: str, names: Iterable[str]) -> str:
    """Return the input that an error's text names first, "" if it names none. names: the inputs of the request."""
    found = [(at, name) for name in names if (at := message.find(repr(name))) >= 0]
    return min(found)[1] if found else ""
