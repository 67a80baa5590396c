"""Every error that a request can meet is one of a few kinds, and each kind has a status."""

from __future__ import annotations

import pytest

from headrace.contracts.errors import (
    BrokerUnavailable,
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    HeadraceError,
    InferenceFailed,
    InputRefused,
    InvalidRequest,
    PayloadTooLarge,
    PoisonRequest,
    QueueFull,
    RequestLost,
    ResultTimeout,
    SignatureMismatch,
    StoreUnavailable,
    UnknownModel,
)
from headrace.gateway.http.problem import KINDS
from headrace.gateway.inference.failure import Kind, failure_of, input_named


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (InvalidRequest, Kind.INVALID, 400),
        (UnknownModel, Kind.UNKNOWN_MODEL, 404),
        (SignatureMismatch, Kind.INPUT, 422),
        (InputRefused, Kind.INPUT, 422),
        (PayloadTooLarge, Kind.TOO_LARGE, 413),
        (QueueFull, Kind.QUEUE_FULL, 429),
        (DeadlineExceeded, Kind.DEADLINE, 504),
        (ResultTimeout, Kind.DEADLINE, 504),
        (Cancelled, Kind.CANCELLED, 409),
        (InferenceFailed, Kind.FAILED, 500),
        (PoisonRequest, Kind.FAILED, 500),
        (RequestLost, Kind.LOST, 503),
        (BrokerUnavailable, Kind.UNAVAILABLE, 503),
        (StoreUnavailable, Kind.UNAVAILABLE, 503),
        (ConfigurationError, Kind.CONFIGURATION, 500),
    ],
)
def test_kinds(error: type[HeadraceError], kind: Kind, status: int) -> None:
    found = failure_of(error("why", request_id="r"), "other")
    assert (found.kind, found.message, found.request_id) == (kind, "why", "r")
    assert KINDS[found.kind][0] == status


def test_whoever_may_try_again_is_told_when() -> None:
    assert failure_of(QueueFull()).retry_after_s is not None
    assert failure_of(SignatureMismatch()).retry_after_s is None


def test_every_kind_has_a_status() -> None:
    assert set(Kind) <= set(KINDS)


def test_the_input_that_a_text_names_first_is_found() -> None:
    assert input_named("input 'b' must be FP32, not as 'a'", ["a", "b"]) == "b"
    assert input_named("every input has zero rows", ["a"]) == ""
