"""The Pareto front of trials: those that no other trial beats in everything. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """The costs of a trial; less is better in each.

    loss: how much worse its metric is than the best possible, in the metric's own unit. seconds: of a batch.
    size_bytes: of its files.
    """

    loss: float
    seconds: float
    size_bytes: float


def dominates(one: Point, other: Point) -> bool:
    """Whether one is at least as good in everything and better in something."""
    pairs = ((one.loss, other.loss), (one.seconds, other.seconds), (one.size_bytes, other.size_bytes))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Point]) -> list[int]:
    """Return the positions of the points that no other point dominates, in their order."""
    return [at for at, point in enumerate(points) if not any(dominates(other, point) for other in points)]
