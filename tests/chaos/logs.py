"""What workers write into their logs: a line for each change of state, never a flood."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

#: Lines are counted within any span of this length.
SPAN_S: Final = 10.0

_WARNING: Final = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}): (?:WARNING|ERROR|CRITICAL)/\S+ (.*)")

#: Lines for each request that the model fails on, or whose row Postgres refuses, are what is wanted; so many fail here
#: on purpose.
_WANTED: Final = (
    "inference failed: request=",
    "can't be stored",
    "of a row can be stored",
    "are stored as bytes",
    "for now, others pass",
)


def most_warnings(logs: Iterable[Path]) -> int:
    """Count the warnings and errors of each log; give the most in any SPAN_S."""
    most = 0
    for log in logs:
        span: deque[float] = deque()
        for at in _times(log):
            if span and at < span[-1] - SPAN_S:
                span.clear()  # the worker's clock was set
            span.append(at)
            while span[0] < at - SPAN_S:
                span.popleft()
            most = max(most, len(span))
    return most


def _times(log: Path) -> Iterator[float]:
    with log.open(errors="replace") as file:
        for line in file:
            match = _WARNING.match(line)
            if match is not None and not any(words in match[3] for words in _WANTED):
                yield datetime.fromisoformat(match[1]).timestamp() + int(match[2]) / 1000
