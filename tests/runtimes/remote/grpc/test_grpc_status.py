"""Statuses of gRPC: each is a wait, a split, a refusal or a thing for a person, and none loses a request."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtimes.remote.error_lines import SAID, is_line_of

from headrace.contracts.problem import in_one_line
from headrace.runtimes.remote.base import (
    Address,
    BatchTooLarge,
    Misconfigured,
    ModelNotReady,
    NoAnswer,
    OtherSignature,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
)
from headrace.runtimes.remote.transport.grpc_status import FailedCall, Unimplemented
from headrace.runtimes.remote.transport.server_text import NotFound

PLAIN = Address("grpc", "host", 8500)
CONNECT = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8500: "
TLS = CONNECT + "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
QUEUE_FULL = "The batch scheduling queue to which this task was submitted is full"
TOO_MANY_ROWS = "Task size 64 is larger than maximum input batch size 32"


def failure(status: str, text: str = "", *, request_bytes: int = 0, retry_after_s: float = 0.0) -> Exception:
    return FailedCall(
        status=status,
        text=text,
        where="digits at grpc://host:8500",
        address=PLAIN,
        request_bytes=request_bytes,
        retry_after_s=retry_after_s,
    ).failure()


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        ("UNAVAILABLE", "", ServerAway),
        ("UNAVAILABLE", CONNECT + "Failed to connect to remote host: Connection refused", ServerAway),
        ("UNAVAILABLE", QUEUE_FULL, ServerBusy),
        ("UNAVAILABLE", "[request id: 3] Exceeds maximum queue size", ServerBusy),
        ("UNAVAILABLE", "Request for unknown model: 'digits' is not found", NotFound),
        ("RESOURCE_EXHAUSTED", "", ServerBusy),
        ("RESOURCE_EXHAUSTED", "OOM when allocating tensor with shape[64,4096]", BatchTooLarge),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (10 vs. 5)", BatchTooLarge),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", NoAnswer),
        ("CANCELLED", "", ServerAway),
        ("ABORTED", "", ServerAway),
        ("DATA_LOSS", "", ServerAway),
        ("INVALID_ARGUMENT", "Incompatible shapes: [2,3] vs. [2,4]", Refused),
        ("INVALID_ARGUMENT", TOO_MANY_ROWS, BatchTooLarge),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: stable", NotFound),
        ("INVALID_ARGUMENT", "input tensor alias not found in signature: x", OtherSignature),
        # A request's own words must not pass for those of a busy server.
        ("INVALID_ARGUMENT", QUEUE_FULL, Refused),
        ("INVALID_ARGUMENT", "OOM when allocating tensor", Refused),
        ("FAILED_PRECONDITION", 'Serving signature key "other" not found.', OtherSignature),
        ("FAILED_PRECONDITION", "Table not initialized.", Refused),
        ("OUT_OF_RANGE", "Error, decoded message length too large: found 5 bytes", BatchTooLarge),
        ("NOT_FOUND", "Servable not found for request: Latest(digits)", NotFound),
        ("NOT_FOUND", "'digits' has no available versions", ModelNotReady),
        ("UNAUTHENTICATED", "", Misconfigured),
        ("PERMISSION_DENIED", "RBAC: access denied", Misconfigured),
        ("UNIMPLEMENTED", "Method not found!", Unimplemented),
        ("INTERNAL", "onnx runtime error 2: not implemented", ServerFailed),
        ("INTERNAL", "Failed to allocate memory for requested buffer of size 99", BatchTooLarge),
        ("INTERNAL", "Received RST_STREAM with error code 2", ServerAway),
        ("UNKNOWN", "Exception calling application: bad value", ServerFailed),
        ("UNKNOWN", "Stream removed", ServerAway),
        ("UNKNOWN", "", ServerFailed),
    ],
)
def test_what_a_status_means(status: str, text: str, error: type[Exception]) -> None:
    found = failure(status, text)
    assert type(found) is error
    assert "digits at grpc://host:8500" in str(found)


@pytest.mark.parametrize("status", [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
@pytest.mark.parametrize("text", ["", TOO_MANY_ROWS, QUEUE_FULL, "x" * 5000, "\0\n"])
def test_every_status_has_an_error(status: str, text: str) -> None:
    known = (ServerAway, BatchTooLarge, Refused, Misconfigured)
    assert isinstance(failure(status, text), known)


def test_the_rows_that_fit_are_learned() -> None:
    found = failure("INVALID_ARGUMENT", TOO_MANY_ROWS)
    assert isinstance(found, BatchTooLarge)
    assert found.most_rows == 32


def test_a_large_request_that_the_server_cancels_is_too_large() -> None:
    text = "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"
    assert type(failure("CANCELLED", text, request_bytes=1000)) is ServerAway
    assert type(failure("CANCELLED", text, request_bytes=5 << 20)) is BatchTooLarge


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    found = failure("UNAVAILABLE", retry_after_s=1.5)
    assert isinstance(found, ServerAway)
    assert found.retry_after_s == 1.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            TLS + "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "the server's certificate is refused: certificate has expired; renew it",
        ),
        (
            TLS + "OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context: OK",
            "the server doesn't speak TLS on that port; is it grpc://host:8500?",
        ),
        (CONNECT + "Hostname Verification Check failed.", "for another name than host"),
        (CONNECT + "Failed to create security handshaker.", "HEADRACE_SERVER_CA_FILE"),
        (CONNECT + "(Trying to connect an http1.x server (HTTP status 400))", "is it http://host:8500?"),
    ],
)
def test_a_connection_that_a_person_must_mend_says_how(text: str, words: str) -> None:
    found = failure("UNAVAILABLE", text)
    assert isinstance(found, Misconfigured)
    assert words in str(found)


def test_the_trouble_with_a_connection_is_said_without_its_wrapping() -> None:
    found = failure("UNAVAILABLE", CONNECT + "Failed to connect to remote host: Connection refused")
    assert str(found) == "digits at grpc://host:8500: Failed to connect to remote host: Connection refused"


def test_what_is_not_found_under_a_ready_model_is_a_value_unless_the_server_names_the_model() -> None:
    missing_version = failure("NOT_FOUND", "Servable not found for request: Specific(digits, 3)")
    assert isinstance(missing_version, NotFound)
    assert missing_version.when_ready() is missing_version
    missing_file = failure("NOT_FOUND", "a.txt; No such file or directory")
    assert isinstance(missing_file, NotFound)
    assert isinstance(missing_file.when_ready(), Refused)


#: The statuses of gRPC but OK, and what a text of such a status may begin with.
STATUSES = st.sampled_from([status.name for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
STARTS = st.sampled_from(["", CONNECT, TLS, "Stream removed (", "[request id: 1] ", QUEUE_FULL, TOO_MANY_ROWS])


@given(STATUSES, STARTS, SAID)
def test_any_status_with_any_text_is_a_declared_error_in_one_line_that_names_the_server(
    status: str, start: str, text: str
) -> None:
    found = failure(status, start + text)
    assert isinstance(found, ServerAway | BatchTooLarge | Refused | Misconfigured)
    assert is_line_of("digits at grpc://host:8500", str(found))


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("UNAUTHENTICATED", "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
        ("PERMISSION_DENIED", "set HEADRACE_SERVER_CREDENTIALS_<NAME>"),
        ("UNIMPLEMENTED", "is it one of the runtime's kind?"),
        ("NOT_FOUND", "or correct [server] in its model.toml"),
    ],
)
@given(text=SAID)
def test_a_remedy_is_told_however_much_the_server_said(status: str, remedy: str, text: str) -> None:
    found = str(failure(status, text))
    assert found.endswith(remedy)
    assert in_one_line(found) == found, "a report of the problem holds all of it"
