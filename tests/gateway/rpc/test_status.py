"""Every way in which a request ends without an answer has a status code."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from headrace.contracts.errors import PayloadTooLarge, QueueFull, UnknownModel
from headrace.gateway.inference.failure import Failure, Kind
from headrace.gateway.oip.errors import MalformedBody, NotSupported
from headrace.gateway.rpc.status import CODES, status_of


def test_every_kind_has_a_code() -> None:
    assert CODES.keys() == set(Kind)
    assert StatusCode.OK not in CODES.values()
    assert StatusCode.UNKNOWN not in CODES.values()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MalformedBody("m"), StatusCode.INVALID_ARGUMENT),
        (NotSupported("m"), StatusCode.UNIMPLEMENTED),
        (UnknownModel("m"), StatusCode.NOT_FOUND),
        (QueueFull("m"), StatusCode.RESOURCE_EXHAUSTED),
        (Failure(Kind.DEADLINE, "m"), StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_errors_keep_their_text(error: Exception, code: StatusCode) -> None:
    assert isinstance(error, Failure | MalformedBody | NotSupported | UnknownModel | QueueFull)
    status = status_of(error)
    assert (status.code, status.text) == (code, "m")


def test_metadata_has_the_row_and_when_to_try_again() -> None:
    status = status_of(Failure(Kind.LOST, "m", "some-id"))
    assert dict(status.metadata) == {"headrace-request-id": "some-id", "grpc-retry-pushback-ms": "1000"}


def test_what_is_too_large_is_not_sent_again() -> None:
    assert dict(status_of(PayloadTooLarge("m")).metadata) == {"grpc-retry-pushback-ms": "-1"}


def test_a_long_text_fits_into_what_clients_take() -> None:
    status = status_of(UnknownModel("ä" * 100_000))
    assert len(status.text.encode()) == 2000
