"""The size of bulk batches beside online requests, which wait for no more than the batch that runs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Online requests that came no longer ago count as present: bulk batches are small while they are.
PRESENT_S: Final = 2.0

#: A bulk batch may hold up an online request by this share of what such a request takes anyway, ...
SHARE: Final = 0.3

#: ... or by this time: below it, a run costs hardly less than one of more rows.
LEAST_S: Final = 0.001

#: Weight of the past in the usual seconds of an online batch.
DECAY: Final = 0.9


class BulkSizing:
    """Decides how many rows the next bulk batch has, by when and how long online batches ran last."""

    def __init__(self, share: float = SHARE) -> None:
        """No online request was seen yet."""
        self._share = share
        self._seen_at = float("-inf")
        self._usual_s = 0.0

    def online(self, now: float, seconds: float) -> None:
        """Take note of an online batch that has ended. seconds: it took, with its wait for the model."""
        self._seen_at = now
        self._usual_s = seconds if not self._usual_s else DECAY * self._usual_s + (1 - DECAY) * seconds

    def rows(self, now: float, predict: Callable[[float], float], most: int) -> int:
        """Return how many rows a bulk batch may have now: `most`, or a half, a quarter, an eighth… of it.

        predict: the seconds of a run by its rows, 0 while nothing is known.
        """
        if now - self._seen_at > PRESENT_S:
            return most
        budget_s = max(predict(1), self._share * self._usual_s, LEAST_S)
        rows = most
        while rows > 1 and predict(rows) > budget_s:
            rows = (rows + 1) // 2
        return rows
