"""The states of a request: terminal ones are stored; a waiting or running request has no row."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """The terminal states of a request, as stored in `predictions.state`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


#: `Handle.status()` of a request that has no row yet.
PENDING: Final = "pending"

#: `Handle.status()` of a request that the broker lost with its data.
LOST: Final = "lost"
