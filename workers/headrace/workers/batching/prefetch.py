"""Prefetch: how much a worker claims ahead, counted in time, so that nothing waits that another could start at once.

A claim takes a message away from all other workers. So a worker claims ahead what it will have begun in some
milliseconds, in which nobody else could have answered it either; and it puts back what it turns out to hold longer.
docs/batching.md says what follows from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

#: A worker claims while all it holds is predicted to have begun within this time. A claim takes a millisecond, and
#: reading a full batch a few: so much work must be there for the model never to wait for them. It is also the longest
#: that a request is kept from a worker that is free.
AHEAD_S: Final = 0.010

#: What waits for longer than this goes back to its queue. A put-back and the claim after it take two milliseconds of
#: the main thread, beside the batch: a tenth of the shortest one that they can be paid for.
KEPT_S: Final = 0.020

#: A batch that runs on for so long after its predicted end was predicted wrongly, and may take any time. On a busy
#: machine a short batch is late by some milliseconds now and then.
LATE_S: Final = 0.050


class Running(NamedTuple):
    """A batch that runs. began: monotonic seconds. seconds: how long it takes, as predicted; infinity if unknown."""

    began: float
    seconds: float

    def rest_s(self, now: float) -> float:
        """Return the predicted seconds until its end; infinity when it should have ended long ago."""
        end = self.began + self.seconds
        return max(0.0, end - now) if now < end + LATE_S else math.inf

    def held_up_others(self, ended_at: float) -> bool:
        """Return whether it was so long, or late, that nothing was claimed for a part of it; that begins again now."""
        # As `opens_in_s` sees it when the batch begins: `seconds` may be a rounding away from that.
        return max(self.rest_s(self.began), ended_at - self.began) > AHEAD_S


def rest_s(running: Running | None, now: float) -> float:
    """Return the predicted seconds until the model is free."""
    return 0.0 if running is None else running.rest_s(now)


def work_s(predict: Callable[[float], float], rows: int, batch_rows: int) -> float:
    """Return how long requests of this many rows take in full batches; infinity if the cost of their model is unknown.

    predict: the seconds of a run by its rows, 0 while nothing is known. batch_rows: of a full batch.
    """
    if rows <= 0:
        return 0.0
    full, rest = divmod(rows, batch_rows)
    return full * predict(batch_rows) + (predict(rest) if rest else 0.0) or math.inf


def opens_in_s(free_in_s: float, waiting_s: float) -> float:
    """Return after how many seconds a worker may claim, for any queue; 0 is now, infinity not before something ends.

    free_in_s: until the batch that runs has ended. waiting_s: how long all that is claimed and has not begun will run.
    """
    if free_in_s + waiting_s <= AHEAD_S:
        return 0.0
    # Only the batch that runs becomes less with time.
    return free_in_s + waiting_s - AHEAD_S if waiting_s <= AHEAD_S else math.inf


def rows_ahead(batch_s: float, batch_rows: int, most_rows: int) -> int:
    """Return how many rows of one model may wait here.

    As many as the next batch takes, and further batches as far as one fits into AHEAD_S.

    batch_s: the predicted seconds of a full batch; infinity if unknown. batch_rows: its rows. most_rows: of the answer,
    and at least `batch_rows`.
    """
    return min(batch_rows * (1 + int(min(AHEAD_S / batch_s, most_rows))), most_rows)


def goes_back(free_in_s: float) -> bool:
    """Return whether what waits for the model is put back, so that another worker can take it."""
    return free_in_s > KEPT_S
