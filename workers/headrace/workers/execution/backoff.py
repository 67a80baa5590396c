"""When a request whose failure may pass is tried again."""

from __future__ import annotations

from typing import Final

#: The first wait; each further one is twice as long, up to MAX_S.
BASE_S: Final = 1.0
FACTOR: Final = 2.0
MAX_S: Final = 60.0

#: A wait is this share of its length at least; the rest is chance, so that what failed together does not come back
#: together.
LEAST_SHARE: Final = 0.5


def retry_delay_s(retries: int, chance: float, left_s: float | None = None) -> float:
    """Return how long a request waits that was tried again `retries` times before.

    chance: from 0 to 1. left_s: seconds to its deadline, if any; it waits no longer than that, so that it expires in
    time.
    """
    # The exponent is bounded, for a float has an end.
    longest = min(MAX_S, BASE_S * FACTOR ** min(retries, 30))
    delay = longest * (LEAST_SHARE + (1 - LEAST_SHARE) * chance)
    return delay if left_s is None else min(delay, max(left_s, 0.0))
