"""How many batches an endpoint gets at the same time: as the package says, or as many as are found to pay."""

from __future__ import annotations

from typing import Final

from headrace.contracts.package.server import MOST_IN_FLIGHT

#: One is computed while the next is on its way.
START: Final = 2

#: One batch more at a time must compute this share of rows more, or the last number was enough.
GAIN: Final = 0.03

#: The rate of a number of batches at a time is measured over so long, and so many batches, at least.
MEASURED_S: Final = 0.25
MEASURED_BATCHES: Final = 8

#: Rates are compared only where this share of the batches ended while as many as allowed were in flight.
SATURATED: Final = 0.8

#: A number that did not pay is tried again after this time, for the load on a server changes.
HOLD_S: Final = 20.0

#: After the server said it is busy, no more are tried for this time; batches refused within `BUSY_S` of each other were
#: in flight together, and say the same.
BUSY_HOLD_S: Final = 2.0
BUSY_S: Final = 0.1
BUSY_FACTOR: Final = 0.7


class InFlightLimit:
    """Rises while more batches at a time compute more rows a second, falls when the server is busy; pure.

    limit: the most batches at the same time at present.
    """

    def __init__(self, fixed: int = 0) -> None:
        """fixed: the limit, which then never changes; 0: it is found out."""
        self.limit = fixed or START
        self._is_fixed = bool(fixed)
        #: The limit before the last rise, and rows a second with it; None when the last step was none.
        self._before: tuple[int, float] | None = None
        self._hold_until = 0.0
        self._busy_until = 0.0
        self._restart(0.0)

    def _restart(self, now: float) -> None:
        self._began = now
        self._rows = self._batches = self._saturated = 0

    def ended(self, now: float, rows: int, in_flight: int) -> None:
        """Count a batch that was computed. in_flight: how many were on their way when it ended, itself included."""
        if self._is_fixed:
            return
        if not self._batches:
            self._began = self._began or now
        self._rows += rows
        self._batches += 1
        self._saturated += in_flight >= self.limit
        if self._batches >= MEASURED_BATCHES and now - self._began >= MEASURED_S:
            self._judge(now)

    def _judge(self, now: float) -> None:
        saturated = self._saturated >= SATURATED * self._batches
        rate = self._rows / (now - self._began)
        self._restart(now)
        if not saturated:
            self._before = None
            return
        before, self._before = self._before, None
        if before is not None and rate < before[1] * (1 + GAIN):
            self.limit = before[0]
            self._hold_until = now + HOLD_S
        elif now >= self._hold_until and self.limit < MOST_IN_FLIGHT:
            self._before = self.limit, rate
            self.limit = min(self.limit + max(1, self.limit // 4), MOST_IN_FLIGHT)

    def busy(self, now: float) -> None:
        """Lower the limit because the server takes no more."""
        if self._is_fixed or now < self._busy_until:
            return
        self.limit = max(1, int(self.limit * BUSY_FACTOR))
        self._busy_until = now + BUSY_S
        self._hold_until = max(self._hold_until, now + BUSY_HOLD_S)
        self._before = None
        self._restart(now)
