"""The intake: a Celery task Strategy that parses each message and admits its request."""

from __future__ import annotations

import logging
import time
from collections.abc import Container
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from headrace.contracts import HeadraceError, InvalidRequest, State
from headrace.workers.intake.parse import MAX_ID_LENGTH, Parser, id_of, is_storable, seconds_of, text_of, time_of
from headrace.workers.request import DeadLetterReason, InferenceRequest, Outcome, Parsed

if TYPE_CHECKING:
    from celery import Celery, Task
    from kombu.message import Message

    from headrace.queueing import Channel

logger = logging.getLogger(__name__)


class Admission(Protocol):
    """Takes in what the intake has read; main thread."""

    def admit(self, request: InferenceRequest) -> None:
        """Take a request that can run."""
        ...

    def look_up(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        """Take a request that was delivered before: unless it has a row, it runs, or ends as `ending` says."""
        ...

    def end(self, outcome: Outcome) -> None:
        """End a request that never reaches a model."""
        ...

    def postpone(self, request: InferenceRequest, delay_s: float) -> None:
        """Return a request to the server until its time has come."""
        ...


class Intake:
    """Turns messages into admitted requests."""

    def __init__(self, parser: Parser, admission: Admission, revoked: Container[str]) -> None:
        """revoked: ids that were cancelled."""
        self._parser = parser
        self._parse = parser.parse
        self._admission = admission
        self._revoked = revoked

    def receive(self, message: Message) -> None:
        """Admit one message, or end it with the error that says what is wrong with it."""
        channel: Channel = message.channel  # type: ignore[assignment]  # the only ones that get here
        request, ending = self._parse(message, channel.consumer)
        if ending is None and not request.redelivered:
            self._admission.admit(request)
        else:
            self.accept((request, ending))

    def accept(self, parsed: Parsed) -> None:
        """Admit, look up or end a request whose message was parsed."""
        request, ending = parsed
        if request.redelivered:
            self._admission.look_up(request, ending)
        elif ending is not None:
            self._admission.end(ending)
        else:
            self._admission.admit(request)

    def accept_due(self, message: Message, parsed: Parsed) -> None:
        """Accept a message that was parsed before, or let it wait for its time."""
        if not self.postpones(message):
            self.accept(parsed)

    def turn_away(
        self, message: Message, error: HeadraceError, *, payload: object = None, dead_letter: str | None = None
    ) -> bool:
        """End a message that is no request of ours with an error; False if it has no id that anybody could ask for.

        payload: its body, if that is one of Celery's protocol 1, which has the id there. dead_letter: why the message
        is kept among the dead letters; None if it isn't.
        """
        parser = self._parser
        request = parser.blank(message, cast("Channel", message.channel).consumer, payload)
        if not id_of(message, payload) or len(request.id) > MAX_ID_LENGTH or not is_storable(request.id):
            return False
        raw_header = message.headers.get("headrace")
        request.celery_result = parser.wants_celery_result(message)
        with suppress(InvalidRequest):
            request.header = parser.header(raw_header)
        reason = None if dead_letter is None else DeadLetterReason(reason=dead_letter, history=[])
        self.accept((request, Outcome(request=request, state=State.FAILED, error=error, dead_letter=reason)))
        return True

    def postpones(self, message: Message) -> bool:
        """Return a message to the server if its `eta` has not come, until then or until it expires."""
        eta = message.headers.get("eta")
        if not eta:
            return False
        try:
            at = seconds_of(text_of(eta))
        except (ValueError, OverflowError):
            return False
        if at <= time.time():
            return False
        with suppress(InvalidRequest):
            at = min(at, time_of(message.headers.get("expires")) or at)
        left_s = at - time.time()
        request = self._parser.blank(message, cast("Channel", message.channel).consumer)
        if left_s <= 0 or request.id in self._revoked:
            return False
        self._admission.postpone(request, left_s)
        return True


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
        if message.headers.get("eta") and self._intake.postpones(message):
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
