"""Waiting for what another process or thread will do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

#: Between two looks: short beside what tests wait for, long enough not to take a core from the process they wait for.
_PAUSE_S: Final = 0.02


def eventually(predicate: Callable[[], _T], within_s: float, what: str) -> _T:
    """Return the first true value of predicate(); fail with `what` when there is none within that time.

    The limit is generous on purpose: it ends a test that would hang, and says nothing about speed.
    """
    ends_at = time.monotonic() + within_s
    while not (value := predicate()):
        assert time.monotonic() < ends_at, f"waited {within_s:g} s in vain for {what}"
        time.sleep(_PAUSE_S)
    return value
