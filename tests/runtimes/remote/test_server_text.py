"""Error texts of servers: each means one thing, and none that a request can forge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtimes.remote.error_lines import SAID, is_line_of

from headrace.runtimes.remote.base import BatchTooLarge, ModelNotReady, OtherSignature, ServerBusy
from headrace.runtimes.remote.transport.server_text import MOST_SEARCHED, Meaning, NotFound, read_text

BUSY = [
    "The batch scheduling queue to which this task was submitted is full; currently 100 of 100 batches are enqueued",
    "This task would start a fresh batch, but all batch threads are busy, so at present there is no capacity",
    "all batch threads are busy",
    "[request id: 17] Exceeds maximum queue size",
    'Model "digits" has no worker to serve inference request. Please use scale workers API to add workers.',
    'Model "digits" Version 1.0 has no worker to serve inference request. Please use scale workers API',
]
LOADING = [
    "Request for unknown model: 'digits' has no available versions",
    "Request for unknown model: 'digits' version 3 is not at ready state",
    "Model with requested version is not loaded yet",
    "Model digits is not ready yet.",
    "Model with name digits is not ready.",
]
ABSENT = [
    "Servable not found for request: Latest(digits)",
    "Servable not found for request: Specific(digits, 3)",
    "Could not find any versions of model digits",
    "Unrecognized servable version label: stable",
    "Request for unknown model: 'digits' is not found",
    "Model with requested name is not found",
    "Model with requested version is retired",
    "Model digits not found",
    "Model digits with version v3 not found",
    "Model digits with version not found",
    "Unexpected <class 'mlserver.errors.ModelNotFound'>: Model digits with version not found",
    "Model with name digits does not exist.",
    "Model not found: digits",
    "Model version: 9 does not exist for model: digits",
]
OTHER_SIGNATURE = [
    "input tensor alias not found in signature: pixels. Inputs expected to be in the set {image}.",
    "output tensor alias not found in signature: y Outputs expected to be in the set {label}.",
    "input size does not match signature: 2!=1 len({image}) != len({image,k}). Sent extra: {k}.",
    'Serving signature key "other" not found.',
    "[request id: 3] unexpected inference input 'pixels' for model 'digits'",
    "[request id: 3] expected 2 inputs but got 1 inputs for model 'digits'",
    "Missing input with specific name - Required input: b",
]
TOO_LARGE = [
    ("Task size 64 is larger than maximum input batch size 32", 32),
    ("[request id: 8] inference request batch-size must be <= 8 for 'digits'", 8),
    ("in ensemble 'both', [request id: 8] inference request batch-size must be <= 2 for 'digits'", 2),
    ("Invalid batch size - Expected: 4; Actual: 9; input name: b", 4),
    ("Invalid input batch size - Expected: 4; Actual: 8 - input name: x", 4),
    ("batch too large", 0),
    ("The batch size is too big", 0),
    ("too many rows", 0),
    ("SERVER: Received message larger than max (5000000 vs. 4194304)", 0),
    ("Stream removed (CLIENT: Received message larger than max (10000000 vs. 5000000))", 0),
    ("grpc: received message larger than max (5000000 vs. 4194304)", 0),
    ("gRPC message exceeds maximum size 4194304: 5000000", 0),
    ("Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes", 0),
]
UNKNOWN = [
    "",
    "Invalid batch size - Expected: 16; Actual: 3; input name: b",
    "Invalid input batch size - Expected: 16; Actual: 3 - input name: x",
    "Incompatible shapes: [2,3] vs. [2,4]",
    "no such name: batch too large",
    "Key not found: 'all batch threads are busy'",
    "could not parse 'Task size 64 is larger than maximum input batch size 1'",
]


@pytest.mark.parametrize(
    ("text", "meaning", "error"),
    [(text, Meaning.BUSY, ServerBusy) for text in BUSY]
    + [(text, Meaning.LOADING, ModelNotReady) for text in LOADING]
    + [(text, Meaning.ABSENT, NotFound) for text in ABSENT]
    + [(text, Meaning.OTHER_SIGNATURE, OtherSignature) for text in OTHER_SIGNATURE]
    + [(text, Meaning.UNKNOWN, type(None)) for text in UNKNOWN],
)
def test_what_a_text_means(text: str, meaning: Meaning, error: type[object]) -> None:
    reading = read_text(text)
    assert reading.meaning is meaning
    failure = reading.failure("digits at grpc://host:1")
    assert type(failure) is error
    assert failure is None or text in str(failure)


@pytest.mark.parametrize(("text", "most_rows"), TOO_LARGE)
def test_a_text_of_too_large_a_batch_names_the_rows_that_fit(text: str, most_rows: int) -> None:
    failure = read_text(text).failure("digits")
    assert isinstance(failure, BatchTooLarge)
    assert failure.most_rows == most_rows


def test_memory_that_ran_out_is_found_inside_the_text_of_a_framework() -> None:
    reading = read_text("2 root error(s) found.\n (0) RESOURCE_EXHAUSTED: OOM when allocating tensor with shape[9,9]")
    assert reading.meaning is Meaning.OUT_OF_MEMORY
    assert isinstance(reading.failure("digits"), BatchTooLarge)


def test_a_number_of_rows_that_no_batch_has_is_none() -> None:
    assert read_text(f"Task size 1 is larger than maximum input batch size {'9' * 3000}").most_rows == 0


#: The error of each meaning.
ERRORS: dict[Meaning, type[Exception]] = {
    Meaning.BUSY: ServerBusy,
    Meaning.TOO_LARGE: BatchTooLarge,
    Meaning.OUT_OF_MEMORY: BatchTooLarge,
    Meaning.LOADING: ModelNotReady,
    Meaning.ABSENT: NotFound,
    Meaning.OTHER_SIGNATURE: OtherSignature,
}

#: Texts with a meaning, in the words of servers.
KNOWN = st.sampled_from([*BUSY, *LOADING, *ABSENT, *OTHER_SIGNATURE, *(text for text, _ in TOO_LARGE)])


@given(SAID | st.builds("{}{}".format, KNOWN, SAID))
def test_any_text_is_a_line_whose_meaning_has_its_error(text: str) -> None:
    reading = read_text(text)
    assert reading.text.isprintable()
    assert len(reading.text) <= MOST_SEARCHED
    assert reading.most_rows >= 0
    failure = reading.failure("digits at grpc://host:1")
    assert type(failure) is ERRORS.get(reading.meaning, type(None))
    assert failure is None or is_line_of("digits at grpc://host:1", str(failure))


@given(KNOWN, SAID)
def test_what_follows_the_words_of_a_server_changes_nothing(known: str, text: str) -> None:
    assert read_text(f"{known} {text}").meaning is read_text(known).meaning


@given(st.text("abc \n'\"", min_size=1).filter(str.strip), KNOWN)
def test_words_of_a_request_in_front_take_the_meaning_away(words: str, known: str) -> None:
    assert read_text(f"{words}: {known}").meaning is Meaning.UNKNOWN
