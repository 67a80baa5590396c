"""Retries with backoff of what may succeed in a moment."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from headrace.bulk.storage.base import StorageUnavailable

T = TypeVar("T")

#: The first wait, and the longest.
FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0


def delay_s(attempt: int, chance: float) -> float:
    """Return how long to wait after an attempt. chance: from 0 to 1, so that workers don't come back together."""
    return float(min(LONGEST_S, FIRST_S * 2 ** min(attempt, 20)) * (0.5 + chance / 2))


def patiently(call: Callable[[int], T], timeout_s: float) -> T:
    """Return what a call returns, which is called again on StorageUnavailable, until it would take too long.

    call: is given the number of the attempt, from 0.
    """
    until = time.monotonic() + timeout_s
    for attempt in itertools.count():
        try:
            return call(attempt)
        except StorageUnavailable:
            wait_s = delay_s(attempt, random.random())  # noqa: S311
            if time.monotonic() + wait_s >= until:
                raise
            time.sleep(wait_s)
    raise AssertionError("itertools.count has no end")
