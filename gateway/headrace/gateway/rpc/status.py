"""The ways in which a call ends without an answer, as gRPC's status codes."""

from __future__ import annotations

from typing import Final

import msgspec
from grpc import StatusCode

from headrace.contracts.errors import HeadraceError
from headrace.gateway.inference.failure import Failure, Kind, failure_of
from headrace.gateway.oip.errors import NotSupported

#: Metadata with the id of the row, of answers and of errors.
REQUEST_ID: Final = "headrace-request-id"

#: Metadata by which a server says when to try again; below 0 for never (gRFC A6). Clients with a retry policy heed it.
RETRY_PUSHBACK: Final = "grpc-retry-pushback-ms"

#: Bytes of a text. Clients take 8 KiB of metadata, where each byte that isn't ASCII takes three.
_MOST_TEXT: Final = 2000

CODES: Final = {
    Kind.INVALID: StatusCode.INVALID_ARGUMENT,
    Kind.UNKNOWN_MODEL: StatusCode.NOT_FOUND,
    Kind.UNKNOWN_REQUEST: StatusCode.NOT_FOUND,
    Kind.INPUT: StatusCode.INVALID_ARGUMENT,
    # As gRPC itself says of messages above its limit.
    Kind.TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    Kind.QUEUE_FULL: StatusCode.RESOURCE_EXHAUSTED,
    Kind.NO_WORKER: StatusCode.UNAVAILABLE,
    Kind.MODEL_UNAVAILABLE: StatusCode.UNAVAILABLE,
    Kind.UNAVAILABLE: StatusCode.UNAVAILABLE,
    Kind.DRAINING: StatusCode.UNAVAILABLE,
    Kind.LOST: StatusCode.UNAVAILABLE,
    Kind.DEADLINE: StatusCode.DEADLINE_EXCEEDED,
    Kind.CANCELLED: StatusCode.CANCELLED,
    Kind.FAILED: StatusCode.INTERNAL,
    Kind.CONFIGURATION: StatusCode.INTERNAL,
}


class Status(msgspec.Struct, frozen=True):
    """The end of a call. text: one line with cause and remedy."""

    code: StatusCode
    text: str
    metadata: tuple[tuple[str, str], ...] = ()


CRASHED: Final = Status(StatusCode.INTERNAL, "the gateway failed on the request; its log has the cause")


def status_of(error: Failure | HeadraceError) -> Status:
    """Return an error as a status."""
    if isinstance(error, NotSupported):
        return Status(StatusCode.UNIMPLEMENTED, _short(error.message))
    failure = error if isinstance(error, Failure) else failure_of(error)
    metadata = []
    if failure.request_id:
        metadata.append((REQUEST_ID, failure.request_id))
    if failure.retry_after_s is not None:
        metadata.append((RETRY_PUSHBACK, str(round(failure.retry_after_s * 1000))))
    elif failure.kind is Kind.TOO_LARGE:
        # Its code is also that of a full queue, after which it is right to try again.
        metadata.append((RETRY_PUSHBACK, "-1"))
    return Status(CODES[failure.kind], _short(failure.message), tuple(metadata))


def _short(text: str) -> str:
    return text.encode()[:_MOST_TEXT].decode(errors="ignore")
