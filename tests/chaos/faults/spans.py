"""How long faults last: shortest and longest, in seconds unless the name says otherwise."""

from __future__ import annotations

from typing import Final, TypeAlias

from tests.chaos.schedule import Fault

Span: TypeAlias = tuple[float, float]

AWAY_S: Final = (0.5, 4.0)
STALL_S: Final = (0.5, 3.0)
FULL_S: Final = (0.3, 2.0)
ANSWER_ERRORS_S: Final = (0.5, 3.0)
POSTGRES_AWAY_S: Final = (3.0, 6.0)
DISK_FULL_S: Final = (2.0, 5.0)
WAL_FULL_S: Final = (0.5, 3.0)
MINUTE_S: Final = (60.0, 65.0)

#: A host is gone, and a table locked, for so many times what a read may be silent.
VANISHED_TIMEOUTS: Final = (1.0, 2.0)

#: A stopped worker sleeps for its lease and this.
BEYOND_LEASE_S: Final = (0.5, 2.5)

#: A stepped clock is off by so much; a run must be shorter, so that the times of its rows can be told apart.
CLOCK_OFF_S: Final = 3600.0

#: A fault is meant to be met; so long is waited for it at most.
MET_S: Final = 120.0


def between(span: Span, fault: Fault) -> float:
    """Return where in a span a fault lies."""
    shortest, longest = span
    return shortest + (longest - shortest) * fault.fraction
