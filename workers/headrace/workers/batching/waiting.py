"""The rule by which a batch waits for more requests, derived in docs/batching.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Weight of one new window against the past ones.
_NEW: Final = 0.125

#: Fewer expected arrivals than this are not worth a wait, whatever the arithmetic says: traffic of single requests
#: waits exactly zero.
MIN_ARRIVALS: Final = 0.5

#: A wait is planned to last this many times as long as the arrivals took on average.
WAIT_FACTOR: Final = 1.5


@dataclass(frozen=True, slots=True)
class Waiting:
    """The situation before a wait: `present` requests with `rows` rows, and `arrivals` more if they wait `wait_s`.

    during_run: requests that come anyway until a run that starts now would end, arrivals included. seconds: the
    predicted seconds of a run by its rows.
    """

    present: int
    rows: int
    arrivals: float
    during_run: float
    wait_s: float
    seconds: Callable[[float], float]

    def saves_s(self) -> float:
        """Return the seconds of latency that the wait saves, summed over all these requests; negative if it costs."""
        per_request = self.rows / self.present
        late = max(self.during_run - self.arrivals, 0.0)
        run_now = self.seconds(self.rows)
        go_now = self.present * run_now + (self.arrivals + late) * (
            run_now + self.seconds((self.arrivals + late) * per_request)
        )
        together = self.wait_s + self.seconds(self.rows + self.arrivals * per_request)
        wait = (self.present + self.arrivals) * together + late * (together + self.seconds(late * per_request))
        return go_now - wait


class ArrivalWatch:
    """Learns how many requests arrive after the moments at which waiting was possible.

    Two windows follow such a moment: a short one, as long as a wait could be (`arrivals`, and `span_s`, the time
    until the last of them), and one as long as the run (`during_run`). Both end when the executor is free again:
    what the replies of a batch bring about, waiting for it would not have brought.
    """

    __slots__ = ("_base", "_count", "_run_end", "_short", "arrivals", "during_run", "opened", "span_s", "until")

    def __init__(self) -> None:
        """Expect no arrivals until some were seen."""
        self.arrivals = 0.0
        self.during_run = 0.0
        self.span_s = 0.0
        #: An arrival after this must be told by `pass_by` before it is counted; infinity while nothing is watched.
        self.until = math.inf
        self.opened: float | None = None
        self._base = 0
        self._count: int | None = None
        self._run_end = math.inf
        self._short = math.inf

    def open(self, now: float, put_count: int, short_s: float, run_s: float) -> None:
        """Begin to watch. put_count: how many requests have been put in so far."""
        self.opened = now
        self.until = now + short_s
        self._run_end = now + max(run_s, short_s)
        self._base = put_count
        self._count = None

    def seen(self, put_count: int) -> int:
        """Return how many requests have come in since `open`."""
        return put_count - self._base

    def pass_by(self, arrived: float, put_count: int, last_arrived: float) -> None:
        """Record that a request arrived after the end of the window that runs; both counts leave it out."""
        if self._count is None:
            self._end_short(put_count, last_arrived)
        if arrived > self._run_end:
            self.close(put_count, last_arrived)

    def close(self, put_count: int, last_arrived: float) -> None:
        """End both windows."""
        if self.opened is None:
            return
        if self._count is None:
            self._end_short(put_count, last_arrived)
        self.during_run += _NEW * (self.seen(put_count) - self.during_run)
        self.opened = None
        self.until = math.inf

    def _end_short(self, put_count: int, last_arrived: float) -> None:
        assert self.opened is not None
        self._count = self.seen(put_count)
        self.arrivals += _NEW * (self._count - self.arrivals)
        if self._count:
            self.span_s += _NEW * (max(last_arrived - self.opened, 0.0) - self.span_s)
        self.until = self._run_end
