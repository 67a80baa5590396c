"""The circuit breaker of an endpoint: after a failure it is left alone, longer each time, until it answers again."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

#: The first pause is about as long as a server's restart at its quickest; each further one is twice as long.
FIRST_PAUSE_S: Final = 0.1
FACTOR: Final = 2.0

#: A server that is back is noticed within this time.
LONGEST_PAUSE_S: Final = 5.0

#: A pause is this share of its length at least; the rest is chance, so that workers don't come back together.
LEAST_SHARE: Final = 0.5

#: While somebody else looks whether the endpoint is back, others ask again after this time.
SOON_S: Final = 0.05


class State(enum.Enum):
    """How an endpoint is treated."""

    #: It takes batches.
    CLOSED = enum.auto()
    #: It failed, and is left alone.
    OPEN = enum.auto()
    #: It is asked whether it is ready.
    CHECKED = enum.auto()
    #: It said that it is ready; one batch shows whether that is true.
    HALF_OPEN = enum.auto()
    #: That batch is on its way.
    ON_TRIAL = enum.auto()


class Breaker:
    """Decides whether an endpoint takes batches; pure: monotonic seconds come in as `now`."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """chance: returns numbers from 0 to 1."""
        self._chance = chance
        self._failures = 0
        self._pause_ends = 0.0
        self.state = State.CLOSED

    @property
    def takes(self) -> bool:
        """Whether it takes a batch now."""
        return self.state in {State.CLOSED, State.HALF_OPEN}

    @property
    def is_up(self) -> bool:
        """Whether it takes a batch now, or as soon as the one on trial has ended."""
        return self.takes or self.state is State.ON_TRIAL

    def wait_s(self, now: float) -> float:
        """Return after how many seconds it is worth asking again whether it takes a batch."""
        if self.is_up:
            return 0.0
        return max(self._pause_ends - now, SOON_S)

    def begin(self) -> None:
        """Take note of a batch that begins."""
        if self.state is State.HALF_OPEN:
            self.state = State.ON_TRIAL

    def answered(self) -> bool:
        """Take note of an answer to a batch, whatever it says; return whether the endpoint is back by that."""
        was_away = self.state is not State.CLOSED
        self.state = State.CLOSED
        self._failures = 0
        return was_away

    def undecided(self) -> None:
        """Take note of a batch that ended without a word on whether the endpoint works."""
        if self.state is State.ON_TRIAL:
            self.state = State.HALF_OPEN

    def failed(self, now: float, least_s: float = 0.0) -> bool:
        """Leave the endpoint alone for a while, `least_s` at least; return whether it took batches until now."""
        was_closed = self.state is State.CLOSED
        if self.state is State.OPEN:
            # Of batches that failed together only the first makes the pause longer.
            self._pause_ends = max(self._pause_ends, now + least_s)
            return False
        # The exponent is bounded, for a float has an end.
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * FACTOR ** min(self._failures, 30))
        pause_s = longest * (LEAST_SHARE + (1 - LEAST_SHARE) * self._chance())
        self._failures += 1
        self._pause_ends = now + max(pause_s, least_s)
        self.state = State.OPEN
        return was_closed

    def begin_check(self, now: float) -> bool:
        """Return whether the endpoint shall be asked now if it is ready; if so, `ready` or `failed` must follow."""
        if self.state is not State.OPEN or now < self._pause_ends:
            return False
        self.state = State.CHECKED
        return True

    def ready(self) -> None:
        """Take note that the endpoint says it is ready."""
        if self.state is State.CHECKED:
            self.state = State.HALF_OPEN
