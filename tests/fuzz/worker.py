"""A worker without servers: kombu's consumer, Celery's dispatch and our intake, on a channel that only notes."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Final

from celery import Celery
from celery.worker.consumer.consumer import Consumer
from kombu.messaging import Consumer as MessageConsumer

from headrace.contracts import Settings, Signature, UnknownModel
from headrace.contracts.message import decode_replies, encode_replies, queue_name
from headrace.contracts.tensors.codec import CONTENT_TYPE
from headrace.queueing import OVERSIZE_HEADER
from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.message import UnreadableBody, open_delivery
from headrace.queueing.consumer.delivery import Delivery
from headrace.results_store import BatchRows
from headrace.workers.celery_app.undeliverable import dead_letter_undeliverable
from headrace.workers.intake.parse import Parser
from headrace.workers.intake.strategy import Intake, inference_strategy
from headrace.workers.models.input_check import InputCheck
from headrace.workers.outbox.finished import not_run
from headrace.workers.outbox.replies import OutgoingReplies
from headrace.workers.outbox.rows import to_rows
from headrace.workers.request import InferenceRequest, Outcome

#: As workers set it: longer messages are read from their end only.
MAX_PAYLOAD_BYTES: Final = 4096
TAIL_BYTES: Final = 8192

_QUEUE: Final = queue_name("double")


class _Channel:
    """Stands for the transport's channel: notes how messages were settled."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.consumer = SimpleNamespace(id="c", dead_letter=lambda tag, _reason, _history: self.settled.append(tag))
        self.max_message_bytes = MAX_PAYLOAD_BYTES * 4 // 3
        self.settled: list[str] = []
        #: Set by `dead_letter_undeliverable`.
        self.unreadable: Any = None

    def basic_ack(self, tag: str, multiple: bool = False) -> None:
        self.settled.append(tag)

    def basic_reject(self, tag: str, requeue: bool = False) -> None:
        self.settled.append(tag)


class _ServedModel:
    """Stands for a loaded model: checks inputs as a real one does."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.check_inputs = InputCheck(signature)
        self.package = SimpleNamespace(version="2")


class _Engine:
    """Stands for the engine: notes what it is given."""

    def __init__(self, signature: Signature) -> None:
        self.settings = Settings(max_payload_bytes=MAX_PAYLOAD_BYTES)
        self.admitted: list[InferenceRequest] = []
        self.ended: list[Outcome] = []
        self.postponed: list[InferenceRequest] = []
        self._served = _ServedModel(signature)

    def get(self, model: str, version: str) -> _ServedModel:
        if model != "double" or version not in {"", "2"}:
            raise UnknownModel
        return self._served

    def admit(self, request: InferenceRequest) -> None:
        self.admitted.append(request)

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)

    def postpone(self, request: InferenceRequest, delay_s: float) -> None:
        if not delay_s > 0:
            raise AssertionError("what waits has something to wait for")
        self.postponed.append(request)

    def look_up(self, request: InferenceRequest, ending: Outcome | None = None) -> None:
        if ending is None:
            self.admitted.append(request)
        else:
            self.ended.append(ending)


class FuzzedWorker:
    """Takes raw messages the way a worker process does, up to the engine; and the other way, from outcome to row."""

    def __init__(self, signature: Signature) -> None:
        """signature: of the model `double`."""
        for name in ("celery", "headrace.workers.celery_app.undeliverable"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._channel = _Channel()
        self._engine = _Engine(signature)
        app = Celery("fuzz", set_as_current=False)
        app.conf.accept_content = ["json", CONTENT_TYPE]
        app.conf["result_backend"] = "headrace+postgresql://nobody@/nowhere"
        consumer: Any = object.__new__(Consumer)
        consumer.app, consumer.strategies, consumer.event_dispatcher = app, {}, None
        consumer.on_task_message, consumer.call_soon_ack = set(), None
        consumer._maximum_prefetch_restored, consumer.restart_count = True, 0
        consumer.connection_errors = ()
        parser = Parser(self._engine.settings, self._engine, revoked=())  # type: ignore[arg-type]
        intake = Intake(parser, self._engine, revoked=())
        consumer.controller = SimpleNamespace(headrace_intake=intake)
        consumer.strategies[_QUEUE] = inference_strategy(None, app, consumer)  # type: ignore[arg-type]
        consumer.task_consumer = SimpleNamespace(channel=self._channel)
        dead_letter_undeliverable(consumer, intake)
        self._receive = object.__new__(MessageConsumer)
        self._receive.channel = self._channel  # type: ignore[assignment]
        self._receive.accept = {"application/json", CONTENT_TYPE}
        self._receive.on_message = consumer.create_task_handler()
        self._receive.on_decode_error = consumer.on_decode_error

    def deliver(self, raw: bytes) -> None:
        """Deliver a message; afterwards it was admitted, or ended as a row, or settled, or is no envelope at all."""
        oversize = len(raw) > MAX_PAYLOAD_BYTES * 4 // 3
        delivery = Delivery(
            tag="1:" + _QUEUE,
            queue=_QUEUE,
            priority_step=0,
            raw=raw[-TAIL_BYTES:] if oversize else raw,
            deliveries=len(raw) % 2,
            oversize=oversize,
            message_bytes=len(raw),
        )
        for queue in (self._channel.settled, self._engine.admitted, self._engine.ended, self._engine.postponed):
            queue.clear()
        try:
            message = open_delivery(delivery, self._channel, self._channel.max_message_bytes)  # type: ignore[arg-type]
            self._receive._receive_callback(message)
        except UnreadableBody as exc:
            message = exc.message
            self._channel.unreadable(exc)
        except NotAnEnvelope:
            return
        told = [*self._channel.settled, *self._engine.admitted, *self._engine.ended, *self._engine.postponed]
        if len(told) != 1:
            raise AssertionError(f"a message is settled once, not {len(told)} times")
        if message.headers.get(OVERSIZE_HEADER) and self._engine.admitted:
            raise AssertionError("a message without its body was admitted")
        for outcome in self._engine.ended:
            _store(outcome, self._engine.settings)
        for request in self._engine.admitted:
            _check_admitted(request)


def _check_admitted(request: InferenceRequest) -> None:
    if request.rows < 1 or not 0 <= request.priority <= 9 or request.attempts < 1:
        raise AssertionError("a request has rows, a priority and attempts")
    if request.deadline is not None and not request.deadline > 0:
        raise AssertionError("a deadline is a time")
    # What the outbox writes for every request: Redis and Postgres take UTF-8.
    request.id.encode()
    (request.foreign_id or "").encode()


def _store(outcome: Outcome, settings: Settings) -> BatchRows:
    """Make row and reply of an outcome, as the outbox does, and encode them."""
    answers = OutgoingReplies.empty()
    rows = to_rows(not_run(None, [outcome]), "fuzz", settings, answers)
    for replies in answers.by_inbox.values():
        decode_replies(encode_replies(replies))
    for key in answers.celery:
        key.encode()
    for row in rows.rows:
        for text in (rows.model, row.foreign_id or "", row.job_id or "", (row.error or b"").decode()):
            if "\0" in text or "\\u0000" in text:
                raise AssertionError("Postgres text holds no NUL")
            text.encode()
    return rows
