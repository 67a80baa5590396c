"""The intake: a Celery task Strategy that checks each message and admits it to the engine.

A request that does not fit its model fails here, alone, before it could reach a batch.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from headrace.contracts import (
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    PayloadTooLarge,
    SignatureMismatch,
    State,
)
from headrace.contracts.errors import quoted
from headrace.contracts.ids import new_id, row_ids
from headrace.contracts.message import MAX_PRIORITY, TASK_PREFIX, RequestHeader, decode_header, decode_inputs
from headrace.queueing import OVERSIZE_HEADER
from headrace.workers.engine import Engine
from headrace.workers.models.served_model import Lane
from headrace.workers.redelivery.lookup import Question
from headrace.workers.request import Burial, InferenceRequest, Outcome

if TYPE_CHECKING:
    from celery import Celery, Task
    from kombu.message import Message

    from headrace.queueing import Channel, ClaimingConsumer, Delivery

logger = logging.getLogger(__name__)

#: Ids of foreign clients longer than this are refused: they would be stored and indexed.
MAX_ID_LENGTH: Final = 255

_NO_HEADER: Final = RequestHeader()

#: Types of which a header has a text.
_READABLE: Final = (str, int, float, dt.datetime, uuid.UUID)


class Intake:
    """Reads messages into requests."""

    def __init__(self, engine: Engine, revoked: Any) -> None:
        """revoked: a container of cancelled ids."""
        self._engine = engine
        self._revoked = revoked
        self._last_header: tuple[object, RequestHeader] = (None, _NO_HEADER)
        self._known: Question | None = None

    def receive(self, message: Message) -> None:
        """Admit one message to the engine, or end it with the error that says what is wrong with it."""
        channel: Channel = message.channel  # type: ignore[assignment]  # the only ones that get here
        request, ending = self._known or self.read(message, channel.consumer)
        if request.redelivered:
            self._engine.resolve(request, ending)
        elif ending is not None:
            self._engine.end(ending)
        else:
            self._engine.admit(request)

    def turn_away(
        self, message: Message, error: HeadraceError, *, payload: object = None, burial: str | None = None
    ) -> bool:
        """End a message that is no request of ours with an error; False if it has no id that anybody could ask for.

        payload: its body, if that is one of Celery's protocol 1, which has the id there. burial: why the message is
        kept among the dead letters; None if it isn't.
        """
        request = self._blank(message, cast("Channel", message.channel).consumer, payload)
        if not _id_of(message, payload) or len(request.id) > MAX_ID_LENGTH or not _is_storable(request.id):
            return False
        raw_header = message.headers.get("headrace")
        request.celery_result = self._wants_celery_result(message)
        with suppress(InvalidRequest):
            request.header = self._header(raw_header)
        buried = None if burial is None else Burial(reason=burial, history=[])
        ending = Outcome(request=request, state=State.FAILED, error=error, burial=buried)
        if request.redelivered:
            self._engine.resolve(request, ending)
        else:
            self._engine.end(ending)
        return True

    @contextmanager
    def knowing(self, reading: Question | None) -> Iterator[None]:
        """Within the block, the message that is received was read before, which gave this."""
        self._known = reading
        try:
            yield
        finally:
            self._known = None

    def read(self, message: Message, consumer: ClaimingConsumer) -> Question:
        """Make a request of a message, and say how it ends if it can't run; any thread."""
        request = self._blank(message, consumer)
        try:
            self._read_headers(request, message)
            if not request.deaths or len(request.deaths) < self._engine.settings.max_deliveries:
                self._read_body(request, message)
        except HeadraceError as exc:
            return request, Outcome(request=request, state=_state_of(exc), error=exc)
        return request, None

    def postpone_until(self, message: Message, at: float) -> bool:
        """Let a message wait until a time in seconds since 1970, or until it expires; False when that has come."""
        with suppress(InvalidRequest):
            at = min(at, _time(message.headers.get("expires")) or at)
        left_s = at - time.time()
        request = self._blank(message, cast("Channel", message.channel).consumer)
        if left_s <= 0 or request.id in self._revoked:
            return False
        self._engine.postpone(request, left_s)
        return True

    def _wants_celery_result(self, message: Message) -> bool:
        """Whether a plain Celery client may wait for the result."""
        headers = message.headers
        is_ours = headers.get("headrace") is not None
        return not is_ours and not headers.get("ignore_result") and self._engine.settings.celery_result_ttl_s > 0

    def _blank(self, message: Message, consumer: ClaimingConsumer, payload: object = None) -> InferenceRequest:
        """Make a request of what is safe to read, so that even a malformed message ends as a row."""
        headers = message.headers
        # A message without an id gets one, so that it has a row of its own.
        request_id = headers.get("id")
        if payload is not None or type(request_id) is not str or not request_id:
            request_id = _id_of(message, payload) or new_id()
        task = headers.get("task")
        if payload is not None or type(task) is not str or not task:
            named = payload.get("task") if isinstance(payload, dict) else task
            task = _text(named) or _text(message.delivery_info.get("routing_key"))
        key, foreign_id = row_ids(request_id)
        request = InferenceRequest(
            id=request_id,
            row_id=key,
            foreign_id=foreign_id,
            model=task.removeprefix(TASK_PREFIX),
            lane=None,
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
            note=_text(headers.get("argsrepr")),
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
        if not _is_storable(request.id):
            raise InvalidRequest("the id holds NUL or lone surrogates, which can't be stored")
        request.celery_result = raw_header is None and self._wants_celery_result(message)
        if len(request.id) > MAX_ID_LENGTH:
            raise InvalidRequest(f"the id has {len(request.id)} characters; at most {MAX_ID_LENGTH} are allowed")
        request.header = header = self._header(raw_header)
        if header.submitted_at:
            request.submitted_at = header.submitted_at
        request.priority = _priority(message.properties.get("priority"))
        if expires := headers.get("expires"):
            self._check_time(request, expires)
        if request.id in self._revoked:
            raise Cancelled
        request.lane = self._engine.lanes.get(request.model, header.version)

    def _read_body(self, request: InferenceRequest, message: Message) -> None:
        assert request.lane is not None
        oversize = message.headers.get(OVERSIZE_HEADER)
        if oversize:
            raise PayloadTooLarge(
                f"the request has {oversize:,} bytes; HEADRACE_MAX_PAYLOAD_BYTES allows "
                f"{self._engine.settings.max_payload_bytes:,}: split it into several requests"
            )
        body: bytes = message.body  # type: ignore[assignment]  # as it came
        request.size_bytes = len(body)
        try:
            request.inputs = request.lane.check_inputs(decode_inputs(body, message.content_type))
        except SignatureMismatch as exc:
            _raise_otherwise_checked(exc, request.header, request.lane)
        request.rows = request.lane.check_inputs.rows_of(request.inputs)

    def _header(self, raw: object) -> RequestHeader:
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
        at = _time(expires)
        if at is None:
            return
        left_s = at - time.time()
        if left_s <= 0:
            raise DeadlineExceeded
        request.deadline = time.monotonic() + left_s


def _raise_otherwise_checked(exc: SignatureMismatch, header: RequestHeader, lane: Lane) -> NoReturn:
    """Raise a mismatch again, with its cause where the client went by another version than this worker serves."""
    version = lane.package.version
    if header.version or header.checked in {"", version}:
        raise exc
    raise SignatureMismatch(
        f"this worker serves version {version}, but the request was checked against version {header.checked}: "
        f"{exc.message}; submit it again, or name the version"
    ) from None


def _id_of(message: Message, payload: object = None) -> str:
    """Return the id under which the sender asks for a message's result, "" if it has none."""
    given = payload.get("id") if isinstance(payload, dict) else message.headers.get("id")
    return _text(given or message.properties.get("correlation_id"))


def _time(expires: object) -> float | None:
    """Read the header `expires` as seconds since 1970; None when there is none. Raises InvalidRequest."""
    if not expires:
        return None
    try:
        return _seconds(_text(expires))
    except (ValueError, OverflowError):
        raise InvalidRequest(f"the header expires={quoted(_text(expires))} is no ISO 8601 time") from None


def _seconds(text: str) -> float:
    """Read a time as Celery writes it, in UTC if it names no zone. Raises ValueError or OverflowError."""
    time_ = dt.datetime.fromisoformat(text)
    return (time_ if time_.tzinfo else time_.replace(tzinfo=dt.UTC)).timestamp()


def _text(value: object) -> str:
    """Write what stands in a header as text; lists and objects, which may be nested deeply, count as nothing."""
    if type(value) is str:  # nearly always; the rest takes longer
        return value
    return str(value) if value and isinstance(value, _READABLE) else ""


def _is_storable(text: str) -> bool:
    """Say whether Redis, JSON and Postgres can all hold a text."""
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


class InferenceHandler:
    """Handles the messages of one task, as Celery calls it or, with `take`, directly."""

    def __init__(self, intake: Intake) -> None:
        """intake: of this worker."""
        self._intake = intake

    def __call__(self, message: Message, body: object, *_: object, **__: object) -> None:
        """Take a message. body: of Celery's protocol 1, else None; the engine needs none of Celery's callbacks."""
        if body is not None:
            _turn_away_protocol_1(self._intake, message, body)
        else:
            self.take(message)

    def take(self, message: Message) -> None:
        """Take a message of Celery's protocol 2: admit it, or let it wait for its time."""
        eta = message.headers.get("eta")
        if eta:
            try:
                at = _seconds(_text(eta))
            except (ValueError, OverflowError):
                at = 0.0
            if at > time.time() and self._intake.postpone_until(message, at):
                return
        self._intake.receive(message)


def inference_strategy(task: Task[Any, Any], app: Celery, consumer: Any) -> InferenceHandler:  # noqa: ARG001 — Celery's interface
    """Make the handler of one task's messages (Celery calls this once a task and connection)."""
    return InferenceHandler(consumer.controller.headrace_intake)


def _turn_away_protocol_1(intake: Intake, message: Message, payload: object) -> None:
    error = InvalidRequest("the message has Celery's protocol 1; set task_protocol = 2 in the sender")
    if not intake.turn_away(message, error, payload=payload):
        logger.error("buried queue=%s reason=%s", cast("Any", message).delivery.queue, error.message)
        channel = cast("Channel", message.channel)
        channel.consumer.dead_letter(cast("str", message.delivery_tag), error.message, [])
