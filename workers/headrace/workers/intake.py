"""The intake: a Celery task Strategy that checks each message and admits it to the engine.

A request that does not fit its model fails here, alone, before it could reach a batch.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.contracts import (
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    PayloadTooLarge,
    State,
)
from headrace.contracts.errors import quoted
from headrace.contracts.ids import new_id, row_id
from headrace.contracts.message import MAX_PRIORITY, TASK_PREFIX, RequestHeader, decode_header, decode_inputs
from headrace.queueing import OVERSIZE_HEADER
from headrace.workers.engine import Engine
from headrace.workers.request import InferenceRequest, Outcome

if TYPE_CHECKING:
    from celery import Celery, Task
    from kombu.message import Message

    from headrace.queueing import Channel, ClaimingConsumer, Delivery

logger = logging.getLogger(__name__)

#: Ids of foreign clients longer than this are refused: they would be stored and indexed.
MAX_ID_LENGTH: Final = 255

_NO_HEADER: Final = RequestHeader()

Handler = Callable[..., None]


class Intake:
    """Reads messages into requests."""

    def __init__(self, engine: Engine, revoked: Any) -> None:
        """revoked: a container of cancelled ids."""
        self._engine = engine
        self._revoked = revoked
        self._last_raw_header: object = None
        self._last_header = _NO_HEADER

    def receive(self, message: Message, *, protocol_1: bool = False) -> None:
        """Admit one message to the engine, or end it with the error that says what is wrong with it."""
        channel = cast("Channel", message.channel)
        request = self._blank(message, channel.consumer)
        try:
            if protocol_1:
                raise InvalidRequest("the message has Celery's protocol 1; set task_protocol = 2 in the sender")
            self._fill(request, message)
        except HeadraceError as exc:
            ending = Outcome(request=request, state=_state_of(exc), error=exc)
            if request.redelivered:
                self._engine.resolve(request, ending)
            else:
                self._engine.end(ending)
            return
        if request.redelivered:
            self._engine.resolve(request)
        else:
            self._engine.admit(request)

    def _blank(self, message: Message, consumer: ClaimingConsumer) -> InferenceRequest:
        """Make a request of what is safe to read, so that even a malformed message ends as a row."""
        headers, delivery = message.headers, message.delivery_info
        claimed: Delivery | None = message.delivery  # type: ignore[attr-defined]  # channels of headrace:// add it
        # A message without an id gets one, so that it has a row of its own.
        request_id = _text(headers.get("id") or message.properties.get("correlation_id")) or new_id()
        task = _text(headers.get("task") or delivery.get("routing_key"))
        return InferenceRequest(
            id=request_id,
            row_id=row_id(request_id),
            model=task.removeprefix(TASK_PREFIX),
            lane=None,
            consumer=consumer,
            tag=cast("str", message.delivery_tag),
            header=_NO_HEADER,
            inputs={},
            rows=0,
            priority=0,
            deadline=None,
            submitted_at=time.time(),
            attempts=1 + (claimed.deliveries + claimed.retries if claimed else 0),
            redelivered=bool(claimed and claimed.deliveries),
            deaths=claimed.deaths if claimed else (),
            retries=claimed.retries if claimed else 0,
            celery_result=False,
            note=_text(headers.get("argsrepr")),
        )

    def _fill(self, request: InferenceRequest, message: Message) -> None:
        headers = message.headers
        raw_header = headers.get("headrace")
        if not _is_storable(request.id):
            raise InvalidRequest("the id holds NUL or lone surrogates, which can't be stored")
        request.celery_result = (
            raw_header is None and not headers.get("ignore_result") and self._engine.settings.celery_result_ttl_s > 0
        )
        if len(request.id) > MAX_ID_LENGTH:
            raise InvalidRequest(f"the id has {len(request.id)} characters; at most {MAX_ID_LENGTH} are allowed")
        request.header = header = self._header(raw_header)
        if header.submitted_at:
            request.submitted_at = header.submitted_at
        request.priority = _priority(message.properties.get("priority"))
        self._check_time(request, headers.get("expires"))
        if request.id in self._revoked:
            raise Cancelled
        oversize = headers.get(OVERSIZE_HEADER)
        if oversize:
            raise PayloadTooLarge(
                f"the request has {oversize:,} bytes; HEADRACE_MAX_PAYLOAD_BYTES allows "
                f"{self._engine.settings.max_payload_bytes:,}: split it into several requests"
            )
        request.lane = self._engine.lanes.get(request.model, header.version)
        request.inputs = request.lane.check_inputs(decode_inputs(cast("bytes", message.body), message.content_type))
        request.rows = len(next(iter(request.inputs.values())))

    def _header(self, raw: object) -> RequestHeader:
        """Decode a `headrace` header; those of requests that were submitted together are equal."""
        try:
            if raw != self._last_raw_header:
                self._last_header = decode_header(raw)
                self._last_raw_header = raw
        except RecursionError:
            raise InvalidRequest("the headrace header is nested too deeply") from None
        return self._last_header

    def _check_time(self, request: InferenceRequest, expires: object) -> None:
        if not expires:
            return
        try:
            at = dt.datetime.fromisoformat(_text(expires))
        except ValueError:
            raise InvalidRequest(f"the header expires={quoted(_text(expires))} is no ISO 8601 time") from None
        left_s = _utc(at).timestamp() - time.time()
        if left_s <= 0:
            raise DeadlineExceeded
        request.deadline = time.monotonic() + left_s


def _utc(time_: dt.datetime) -> dt.datetime:
    """Read a time without a zone as Celery does."""
    return time_ if time_.tzinfo else time_.replace(tzinfo=dt.UTC)


def _text(value: object) -> str:
    """Write what stands in a header as text; lists and objects, which may be nested deeply, count as nothing."""
    return str(value) if value and isinstance(value, str | int | float | dt.datetime | uuid.UUID) else ""


def _is_storable(text: str) -> bool:
    """Say whether Redis, JSON and Postgres can all hold a text."""
    # Nearly all ids are ASCII, which is known without looking at each character.
    return "\0" not in text and (text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text))


def _priority(value: object) -> int:
    return min(max(value, 0), MAX_PRIORITY) if isinstance(value, int) else 0


def _state_of(error: HeadraceError) -> State:
    if isinstance(error, DeadlineExceeded):
        return State.EXPIRED
    return State.CANCELLED if isinstance(error, Cancelled) else State.FAILED


def inference_strategy(task: Task[Any, Any], app: Celery, consumer: Any) -> Handler:  # noqa: ARG001 — Celery's interface
    """Make the handler of one task's messages (Celery calls this once a task and connection)."""
    receive = consumer.controller.headrace_intake.receive
    call_at = consumer.timer.call_at

    def handle(message: Message, body: object, ack: object, reject: object, callbacks: object, **_: object) -> None:  # noqa: ARG001
        eta = message.headers.get("eta")
        if eta:
            try:
                at = _utc(dt.datetime.fromisoformat(_text(eta))).timestamp()
            except (ValueError, OverflowError):
                at = 0.0
            if at > time.time():
                call_at(at, receive, (message,))
                return
        receive(message, protocol_1=body is not None)

    return handle
