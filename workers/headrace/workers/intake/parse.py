"""The parser: reads a claimed message into a request, and finds out how it ends if it can't run.

A request that does not fit its model fails here, alone, before it could reach a batch.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Container
from typing import TYPE_CHECKING, Final, NoReturn

from headrace.contracts import (
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    PayloadTooLarge,
    Settings,
    SignatureMismatch,
    State,
)
from headrace.contracts.errors import quoted
from headrace.contracts.ids import new_id, row_ids
from headrace.contracts.message import MAX_PRIORITY, TASK_PREFIX, RequestHeader, decode_header, decode_inputs
from headrace.queueing import OVERSIZE_HEADER
from headrace.workers.models.served_model import ServedModel
from headrace.workers.models.table import ModelTable
from headrace.workers.request import InferenceRequest, Outcome, Parsed

if TYPE_CHECKING:
    from kombu.message import Message

    from headrace.queueing import ClaimingConsumer, Delivery

#: Ids of foreign clients longer than this are refused: they would be stored and indexed.
MAX_ID_LENGTH: Final = 255

_NO_HEADER: Final = RequestHeader()

#: Types of which a header has a text.
_READABLE: Final = (str, int, float, dt.datetime, uuid.UUID)


class Parser:
    """Reads messages into requests; changes nothing but a cache, so any thread may."""

    def __init__(self, settings: Settings, models: ModelTable, revoked: Container[str]) -> None:
        """models: those that requests may name. revoked: ids that were cancelled."""
        self._models = models
        self._revoked = revoked
        self._max_deliveries = settings.max_deliveries
        self._max_payload_bytes = settings.max_payload_bytes
        self._celery_results = settings.celery_result_ttl_s > 0
        self._last_header: tuple[object, RequestHeader] = (None, _NO_HEADER)

    def parse(self, message: Message, consumer: ClaimingConsumer) -> Parsed:
        """Return the request of a message, and how it ends if it can't run."""
        request = self.blank(message, consumer)
        try:
            self._read_headers(request, message)
            if not request.deaths or len(request.deaths) < self._max_deliveries:
                self._read_body(request, message)
        except HeadraceError as exc:
            return request, Outcome(request=request, state=_state_of(exc), error=exc)
        return request, None

    def wants_celery_result(self, message: Message) -> bool:
        """Whether a plain Celery client may wait for the result."""
        headers = message.headers
        is_ours = headers.get("headrace") is not None
        return not is_ours and not headers.get("ignore_result") and self._celery_results

    def blank(self, message: Message, consumer: ClaimingConsumer, payload: object = None) -> InferenceRequest:
        """Make a request of what is safe to read, so that even a malformed message ends as a row."""
        headers = message.headers
        # A message without an id gets one, so that it has a row of its own.
        request_id = headers.get("id")
        if payload is not None or type(request_id) is not str or not request_id:
            request_id = id_of(message, payload) or new_id()
        task = headers.get("task")
        if payload is not None or type(task) is not str or not task:
            named = payload.get("task") if isinstance(payload, dict) else task
            task = text_of(named) or text_of(message.delivery_info.get("routing_key"))
        key, foreign_id = row_ids(request_id)
        request = InferenceRequest(
            id=request_id,
            row_id=key,
            foreign_id=foreign_id,
            model=task.removeprefix(TASK_PREFIX),
            served=None,
            consumer=consumer,
            tag=message.delivery_tag,  # type: ignore[arg-type]  # always there on channels of headrace://
            header=_NO_HEADER,
            inputs={},
            rows=0,
            priority=0,
            deadline=None,
            submitted_at=time.time(),
            attempts=1,
            celery_result=False,
            note=text_of(headers.get("argsrepr")),
        )
        claimed: Delivery | None = message.delivery  # type: ignore[attr-defined]  # channels of headrace:// add it
        if claimed is not None and (claimed.deliveries or claimed.retries or claimed.crashes):
            request.attempts += claimed.deliveries + claimed.retries
            request.redelivered = claimed.deliveries > 0
            request.deaths = claimed.crashes
            request.retries = claimed.retries
        return request

    def _read_headers(self, request: InferenceRequest, message: Message) -> None:
        headers = message.headers
        raw_header = headers.get("headrace")
        if not is_storable(request.id):
            raise InvalidRequest("the id holds NUL or lone surrogates, which can't be stored")
        request.celery_result = raw_header is None and self.wants_celery_result(message)
        if len(request.id) > MAX_ID_LENGTH:
            raise InvalidRequest(f"the id has {len(request.id)} characters; at most {MAX_ID_LENGTH} are allowed")
        request.header = header = self.header(raw_header)
        if header.submitted_at:
            request.submitted_at = header.submitted_at
        request.priority = _priority(message.properties.get("priority"))
        if expires := headers.get("expires"):
            self._check_time(request, expires)
        if request.id in self._revoked:
            raise Cancelled
        request.served = self._models.get(request.model, header.version)

    def _read_body(self, request: InferenceRequest, message: Message) -> None:
        served: ServedModel = request.served  # type: ignore[assignment]  # `_read_headers` found it
        oversize = message.headers.get(OVERSIZE_HEADER)
        if oversize:
            raise PayloadTooLarge(
                f"the request has {oversize:,} bytes; HEADRACE_MAX_PAYLOAD_BYTES allows "
                f"{self._max_payload_bytes:,}: split it into several requests"
            )
        body: bytes = message.body  # type: ignore[assignment]  # as it came
        request.size_bytes = len(body)
        try:
            request.inputs = served.check_inputs(decode_inputs(body, message.content_type))
        except SignatureMismatch as exc:
            _raise_otherwise_checked(exc, request.header, served)
        request.rows = served.check_inputs.rows_of(request.inputs)

    def header(self, raw: object) -> RequestHeader:
        """Decode a `headrace` header; those of requests that were submitted together are equal."""
        # One pair, for two threads may read messages at once.
        last_raw, last = self._last_header
        try:
            if raw != last_raw:
                last = decode_header(raw)
                self._last_header = raw, last
        except RecursionError:
            raise InvalidRequest("the headrace header is nested too deeply") from None
        return last

    @staticmethod
    def _check_time(request: InferenceRequest, expires: object) -> None:
        at = time_of(expires)
        if at is None:
            return
        left_s = at - time.time()
        if left_s <= 0:
            raise DeadlineExceeded
        request.deadline = time.monotonic() + left_s


def _raise_otherwise_checked(exc: SignatureMismatch, header: RequestHeader, served: ServedModel) -> NoReturn:
    """Raise a mismatch again, with its cause where the client went by another version than this worker serves."""
    version = served.package.version
    if header.version or header.checked in {"", version}:
        raise exc
    raise SignatureMismatch(
        f"this worker serves version {version}, but the request was checked against version {header.checked}: "
        f"{exc.message}; submit it again, or name the version"
    ) from None


def id_of(message: Message, payload: object = None) -> str:
    """Return the id under which the sender asks for a message's result, "" if it has none."""
    given = payload.get("id") if isinstance(payload, dict) else message.headers.get("id")
    return text_of(given or message.properties.get("correlation_id"))


def time_of(expires: object) -> float | None:
    """Read the header `expires` as seconds since 1970; None when there is none. Raises InvalidRequest."""
    if not expires:
        return None
    try:
        return seconds_of(text_of(expires))
    except (ValueError, OverflowError):
        raise InvalidRequest(f"the header expires={quoted(text_of(expires))} is no ISO 8601 time") from None


def seconds_of(text: str) -> float:
    """Read a time as Celery writes it, in UTC if it names no zone. Raises ValueError or OverflowError."""
    time_ = dt.datetime.fromisoformat(text)
    return (time_ if time_.tzinfo else time_.replace(tzinfo=dt.UTC)).timestamp()


def text_of(value: object) -> str:
    """Return the value of a header as text; lists and objects, which may be nested deeply, count as empty."""
    if type(value) is str:  # nearly always; the rest takes longer
        return value
    return str(value) if value and isinstance(value, _READABLE) else ""


def is_storable(text: str) -> bool:
    """Return whether Redis, JSON and Postgres can all hold a text."""
    # Nearly all ids are ASCII, which is known without looking at each character.
    return "\0" not in text and (text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text))


def _priority(value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_PRIORITY:  # nearly always
        return value
    return min(max(value, 0), MAX_PRIORITY) if isinstance(value, int) else 0


def _state_of(error: HeadraceError) -> State:
    if isinstance(error, DeadlineExceeded):
        return State.EXPIRED
    return State.CANCELLED if isinstance(error, Cancelled) else State.FAILED
