"""The announcement of what a worker serves, renewed before it expires and made anew when something has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from headrace.contracts.problem import Problem
from headrace.queueing.consumer.serving import ConsumedQueues, Served

#: The announcement is renewed this often; it expires after `serving.SERVED_TTL_S`.
RENEW_S: Final = 30.0

#: Problems of models are announced within this time. A look costs less than a microsecond a model, and nothing is sent
#: unless something has changed.
LOOK_S: Final = 1.0


class Announcement:
    """Announces over one connection what a worker serves. Methods raise the errors of `redis.exceptions`."""

    def __init__(
        self,
        served: Callable[[], dict[str, Served]],
        problems: Callable[[], dict[str, Problem]],
        queues: ConsumedQueues,
    ) -> None:
        """served: by queue. problems: those of `served`, by queue too."""
        self._served = served
        self._problems = problems
        self._queues = queues
        self._announced: dict[str, Served] = {}
        self._known: dict[str, Problem] = {}

    def announce(self) -> None:
        """Announce everything."""
        # Before the other, which then is as new or newer.
        known, served = self._problems(), self._served()
        self._queues.serve(served)
        self._known, self._announced = known, served

    def renew(self) -> None:
        """Keep the announcement from expiring; make it anew where a model's server has other tensors now."""
        if self._served() == self._announced:
            self._queues.serve_again()
        else:
            self.announce()

    def look(self) -> None:
        """Announce problems that have come, changed or gone since."""
        if self._problems() != self._known:
            self.announce()
