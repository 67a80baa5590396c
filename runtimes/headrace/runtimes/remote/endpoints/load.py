"""The load of each endpoint, and the choice of the one that takes the next batch."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from headrace.runtimes.remote.endpoints.breaker import Breaker
from headrace.runtimes.remote.endpoints.in_flight_limit import InFlightLimit

#: The first pause after an endpoint said that it is busy; each further one is twice as long, up to the longest.
BUSY_PAUSE_S: Final = 0.02
LONGEST_BUSY_PAUSE_S: Final = 1.0

#: After so many batches in a row without any answer, an endpoint is asked whether it is there at all.
SILENCES: Final = 3


class Load:
    """How much one endpoint has to do, and whether it takes more; pure.

    in_flight: batches on their way. answers: how many were answered. mismatch: how the model's tensors differ from the
    package's, "" if they don't; such an endpoint takes none.
    """

    def __init__(self, chance: Callable[[], float], fixed_limit: int = 0) -> None:
        """chance: returns numbers from 0 to 1. fixed_limit: as in `InFlightLimit`."""
        self._chance = chance
        self.breaker = Breaker(chance)
        self.limit = InFlightLimit(fixed_limit)
        self.in_flight = 0
        self.answers = 0
        self.mismatch = ""
        self._busy_times = 0
        self._busy_until = 0.0
        self._silences = 0

    def is_up(self, now: float) -> bool:
        """Whether it would take a batch if it had no others."""
        return self.breaker.is_up and now >= self._busy_until and not self.mismatch

    def takes(self, now: float) -> bool:
        """Whether it takes a batch now."""
        return self.breaker.takes and self.is_up(now) and self.in_flight < self.limit.limit

    def wait_s(self, now: float) -> float:
        """Return after how many seconds it is worth asking again, if it isn't up."""
        return max(self.breaker.wait_s(now), self._busy_until - now, 0.0)

    def begin(self) -> None:
        """Take note of a batch that begins; one of the methods below tells how it ended, and `end` follows."""
        self.in_flight += 1
        self.breaker.begin()

    def end(self) -> None:
        """Take note of a batch that has ended."""
        self.in_flight -= 1
        self.breaker.undecided()

    def succeeded(self, now: float, rows: int) -> bool:
        """Take note of a batch that was computed; return whether the endpoint is back by that."""
        self.limit.ended(now, rows, self.in_flight)
        return self.answered()

    def answered(self) -> bool:
        """Take note of an answer, whatever it says; return whether the endpoint is back by that."""
        self.answers += 1
        self._busy_times = self._silences = 0
        return self.breaker.answered()

    def busy(self, now: float, retry_after_s: float) -> None:
        """Pause for a moment, and send less at a time."""
        self.limit.busy(now)
        longest = min(BUSY_PAUSE_S * 2 ** min(self._busy_times, 30), LONGEST_BUSY_PAUSE_S)
        self._busy_times += 1
        self._busy_until = max(self._busy_until, now + max(retry_after_s, longest * (0.5 + self._chance() / 2)))

    def silent(self, now: float) -> bool:
        """Take note of a batch whose deadline passed; return whether the endpoint counts as away by that.

        A short deadline says nothing of a server, but several batches in a row without any answer do.
        """
        self._silences += 1
        return self._silences >= SILENCES and self.failed(now)

    def failed(self, now: float, least_s: float = 0.0) -> bool:
        """Leave the endpoint alone for a while; return whether it took batches until now."""
        return self.breaker.failed(now, least_s)


def choose(loads: Sequence[Load], now: float, turn: int, tried: Container[int] = ()) -> int | None:
    """Return the endpoint that takes the next batch, the one with the fewest in flight; None if none takes it.

    turn: a number that grows with each batch, so that equals take turns. tried: those that failed this batch before.
    """
    count = len(loads)
    order = [(turn + step) % count for step in range(count)]
    free = [at for at in order if at not in tried and loads[at].takes(now)]
    return min(free, key=lambda at: loads[at].in_flight, default=None)


def most_in_flight(loads: Sequence[Load], now: float) -> int:
    """Return how many batches all endpoints take together; one at least, which then finds out why none does."""
    return max(sum(load.limit.limit for load in loads if load.is_up(now)), 1)


def wait_s(loads: Sequence[Load], now: float) -> float:
    """Return after how many seconds it is worth asking again, if no endpoint is up."""
    return min(load.wait_s(now) for load in loads)
