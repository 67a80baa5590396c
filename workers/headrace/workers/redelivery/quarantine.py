"""Messages that came back from a consumer that died, opened so that a death in opening them can be told and is blamed.

Nobody knows what killed the consumer: perhaps a message that was being read, before it was anything that could run.
So what comes back is not opened by the consuming thread but by the executor's, between two batches, one at a time and
under a mark of its own: whatever dies then, nothing else was running. The outcome goes back to the consuming thread,
which treats it as any other message. First deliveries know nothing of all this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.contracts.message import JSON_CONTENT_TYPE
from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.message import open_delivery
from headrace.workers.redelivery.lookup import Question, burial_of

if TYPE_CHECKING:
    from headrace.queueing import Channel, Delivery
    from headrace.queueing.channel.message import Message
    from headrace.workers.intake.strategy import Intake

logger = logging.getLogger(__name__)


class Returned:
    """One message that came back. `open` is the executor's to call, all else the consuming thread's."""

    def __init__(self, delivery: Delivery, channel: Channel, intake: Intake, max_deaths: int) -> None:
        """max_deaths: of a message that so many consumers died of, no more is read than what names it."""
        self.delivery = delivery
        self.consumer = channel.consumer
        self._channel = channel
        self._intake = intake
        self._deadly = len(delivery.crashes) >= max_deaths
        self._opened: Message | None = None
        self._reading: Question | None = None
        self._garbage: NotAnEnvelope | None = None

    def open(self) -> None:
        """Do all that depends on what the message holds; changes nothing but this object."""
        try:
            delivery = self.delivery.end_only() if self._deadly else self.delivery
            opened = open_delivery(delivery, self._channel, self._channel.max_message_bytes)
        except NotAnEnvelope as exc:
            self._garbage = exc
            return
        self._opened = opened
        if "task" in opened.headers:
            self._reading = self._intake.read(opened, self.consumer)
            return
        # Celery takes this for its protocol 1 and decodes the body: better here, and what it found is kept. Why it
        # can't be decoded, its dispatch finds out once more, and says so.
        opened.accept = {JSON_CONTENT_TYPE}
        with suppress(Exception):
            opened.decode()

    def go_on(self) -> None:
        """Hand the message on to Celery's dispatch, or bury what is none."""
        if not self.consumer.holds(self.delivery.tag):
            return  # the channel was closed, and the message went back
        if self._opened is not None:
            with self._intake.knowing(self._reading):
                self._channel.pass_on(self.delivery, self._opened)
        elif self._deadly:
            self.bury()
        elif self._garbage is not None:
            self._channel.dead_letter_garbage(self.delivery, self._garbage)

    def bury(self) -> None:
        """Move it to the dead letters unread."""
        burial = burial_of(self.delivery.crashes)
        logger.error("buried unread queue=%s reason=%s", self.delivery.queue, burial.reason)
        self.consumer.dead_letter(self.delivery.tag, burial.reason, burial.history)


class Probation:
    """Takes what comes back on one channel."""

    def __init__(self, channel: Channel, intake: Intake, probe: Callable[[Returned], None], max_deaths: int) -> None:
        """probe: has a message opened, then lets it go on. max_deaths: as many make a message a dead letter."""
        self._channel = channel
        self._intake = intake
        self._probe = probe
        self._max_deaths = max_deaths

    def take(self, delivery: Delivery) -> None:
        """Take a message that came back, unopened."""
        returned = Returned(delivery, self._channel, self._intake, self._max_deaths)
        if len(delivery.crashes) > self._max_deaths:
            # Reading no more than its end killed one, too. Nobody can tell whose request it is.
            returned.bury()
        else:
            self._probe(returned)
