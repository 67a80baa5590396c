"""The states of a request: terminal ones are stored; a waiting or running request has no row."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """How a request ended, as stored in `predictions.state`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


#: What `Handle.status()` says of a request that has no row yet.
PENDING: Final = "pending"

#: What `Handle.status()` says of a request that the broker lost with its data.
LOST: Final = "lost"
