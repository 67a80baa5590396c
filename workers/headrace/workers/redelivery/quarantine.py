"""Decodes redelivered messages one at a time, so that one that crashes the decoder is identified and dead-lettered.

Nobody knows why the consumer of such a message died: perhaps of a message that was being decoded, before it was
anything that could run. So redelivered messages are not decoded by the consuming thread but by the executor's, between
two batches, one at a time and under a running marker of their own: when the process dies then, nothing else was
running. Then the consuming thread goes on: requests go to the intake, other messages to Celery's dispatch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.contracts.message import JSON_CONTENT_TYPE
from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.message import open_delivery
from headrace.workers.intake.parse import Parser
from headrace.workers.intake.strategy import Intake
from headrace.workers.redelivery.lookup import dead_letter_reason
from headrace.workers.redelivery.redeliveries import Redeliveries
from headrace.workers.request import Parsed

if TYPE_CHECKING:
    from headrace.queueing import Channel, Delivery
    from headrace.queueing.channel.message import Message

logger = logging.getLogger(__name__)


class Quarantine:
    """Takes the redelivered messages of one channel."""

    def __init__(
        self,
        channel: Channel,
        parser: Parser,
        intake: Intake,
        *,
        serves: Callable[[object], bool],
        redeliveries: Redeliveries,
        max_deaths: int,
    ) -> None:
        """serves: whether a task is a model of this worker. redeliveries: where messages are decoded.

        max_deaths: a message that this many consumers died of becomes a dead letter.
        """
        self.channel = channel
        self.parser = parser
        self.intake = intake
        self.serves = serves
        self.max_deaths = max_deaths
        self.redeliveries = redeliveries

    def take(self, delivery: Delivery) -> None:
        """Take a redelivered message, undecoded."""
        message = RedeliveredMessage(delivery, self)
        if len(delivery.crashes) > self.max_deaths:
            # Reading no more than its end killed one, too. Nobody can tell whose request it is.
            message.dead_letter()
        else:
            self.redeliveries.probe(message)


class RedeliveredMessage:
    """One redelivered message. The executor calls `open`, the consuming thread all else."""

    def __init__(self, delivery: Delivery, quarantine: Quarantine) -> None:
        """Nothing is decoded yet."""
        self.delivery = delivery
        self.consumer = quarantine.channel.consumer
        self._quarantine = quarantine
        self._deadly = len(delivery.crashes) >= quarantine.max_deaths
        self._opened: Message | None = None
        self._parsed: Parsed | None = None
        self._garbage: NotAnEnvelope | None = None

    @property
    def consumer_id(self) -> str:
        """The consumer that holds the message."""
        return self.consumer.id

    @property
    def tag(self) -> str:
        """Its tag there."""
        return self.delivery.tag

    def open(self) -> None:
        """Decode the message; changes nothing but this object.

        Of a message that has killed too many consumers, no more is read than its end, which names it.
        """
        delivery = self.delivery.end_only() if self._deadly else self.delivery
        try:
            opened = open_delivery(delivery, self._quarantine.channel, self._quarantine.channel.max_message_bytes)
        except NotAnEnvelope as exc:
            self._garbage = exc
            return
        self._opened = opened
        if "task" in opened.headers:
            if self._quarantine.serves(opened.headers["task"]) and not opened.errors:
                self._parsed = self._quarantine.parser.parse(opened, self.consumer)
            return
        # Celery takes this for its protocol 1 and decodes the body: better here, and the result is kept. If it can't be
        # decoded, Celery's dispatch finds out again and reports it.
        opened.accept = {JSON_CONTENT_TYPE}
        with suppress(Exception):
            opened.decode()

    def opened(self) -> None:
        """Have the main thread go on; called on the executor's thread after `open`."""
        self._quarantine.redeliveries.on_opened(self)

    def go_on(self) -> None:
        """Pass the decoded message on, or dead-letter what is none."""
        if not self.consumer.holds(self.delivery.tag):
            return  # the channel was closed, and the message went back
        if self._opened is not None and self._parsed is not None:
            self._quarantine.intake.accept_due(self._opened, self._parsed)
        elif self._opened is not None:
            self._quarantine.channel.pass_on(self.delivery, self._opened)
        elif self._deadly:
            self.dead_letter()
        elif self._garbage is not None:
            self._quarantine.channel.dead_letter_garbage(self.delivery, self._garbage)

    def dead_letter(self) -> None:
        """Move it to the dead letters unread."""
        letter = dead_letter_reason(self.delivery.crashes)
        logger.error("buried unread queue=%s reason=%s", self.delivery.queue, letter.reason)
        self.consumer.dead_letter(self.delivery.tag, letter.reason, letter.history)
