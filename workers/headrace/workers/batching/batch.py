"""Waiting requests (items), requests that leave together (a batch), and the reason why a batch left."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Reason(StrEnum):
    """Why a batch left; the first of these that holds.

    drain: it was taken with `drain=True` (shutdown).
    backlog: it took as much as one batch should, and more of its own bucket remain (too many rows for one
        batch, a next request that does not fit, or an exact fill of a fixed size with a rest).
    full: it took all of its bucket, and that reached the most rows of a batch (or is one oversized request).
    bucket: it took all of its bucket without being full, and requests of other buckets wait too, so
        it did not wait for more requests.
    deadline: it took all there was without being full; waiting (longer) for more requests would have paid, but
        some request's deadline would have suffered.
    idle: it took all there was without being full, because an executor was free: at once, or at the end of its wait.
    """

    FULL = "full"
    IDLE = "idle"
    BACKLOG = "backlog"
    DEADLINE = "deadline"
    BUCKET = "bucket"
    DRAIN = "drain"


class Item(msgspec.Struct, Generic[T], eq=False):
    """One waiting request; compared and hashed by identity.

    payload: whatever the executor needs. rows: its rows, at least 1. priority: 0 to 9, 9 first.
    deadline, arrived: monotonic seconds. bucket: what must be equal within a batch, such as the shapes of the
    inputs without rows; None when shapes are fixed.
    """

    payload: T
    rows: int
    priority: int
    deadline: float | None
    arrived: float
    bucket: Hashable = None


@dataclass(slots=True)
class Batch(Generic[T]):
    """Requests that run together, most urgent first.

    rows: the sum of their rows. padded_rows: the rows to run; more than `rows` only where the model asks for
    fixed sizes.
    """

    items: list[Item[T]]
    rows: int
    reason: Reason
    bucket: Hashable
    padded_rows: int
