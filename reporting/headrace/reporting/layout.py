"""Positions in a chart: round ticks, boxes that don't overlap. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.reporting.text import width_of

#: Height of a line of text above and below its baseline, at the font size of charts.
ABOVE: Final = 10.0
BELOW: Final = 3.0
LINE: Final = ABOVE + BELOW

#: Where a label may stand beside its point: directions and distances, the nearest first.
_DIRECTIONS: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES: Final = (9.0, 20.0, 34.0, 50.0)

#: A label further from its point than this gets a line to it.
FAR: Final = _DISTANCES[1]

#: Beyond these, numbers are written with a power of ten.
_LEAST_STEP: Final = 1e-5
_LARGEST_WRITTEN: Final = 1e6


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes share a point."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Return whether the whole box lies in another one."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def around(x: float, y: float, radius: float) -> Box:
    """Return the box around a point."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def free_place(x: float, y: float, name: str, taken: Sequence[Box], frame: Box) -> Box | None:
    """Return a box for a name near its point that overlaps no other; None when there is no room for it."""
    half = width_of(name) / 2
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            across, along = x + right * (distance + half), y + up * (distance + (0 if right else LINE / 2 - 2))
            place = Box(across - half, along - LINE / 2, across + half, along + LINE / 2)
            if place.within(frame) and not any(place.overlaps(other) for other in taken):
                return place
    return None


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart so that neighbours keep a distance, in their order, within low…high if there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed: list[float] = []
    for index in order:
        placed.append(max(wanted[index], placed[-1] + gap if placed else low))
    limit = high
    for at in reversed(range(len(placed))):
        placed[at] = min(placed[at], limit)
        limit = placed[at] - gap
    result = [0.0] * len(wanted)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def round_ticks(low: float, high: float) -> list[float]:
    """Return about five round values between two."""
    step = _round_step((high - low) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def log_ticks(low: float, high: float) -> list[float]:
    """Return at least three round values between two for a logarithmic axis, where there are that many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return ticks


def tick_text(value: float, low: float, high: float) -> str:
    """Write a tick of an axis low…high with the decimals that distinguish it from its neighbours."""
    step, largest = _round_step((high - low) / 5), max(abs(low), abs(high))
    if step < _LEAST_STEP or largest >= _LARGEST_WRITTEN:
        digits = max(1, math.ceil(math.log10(max(largest / step, 1))) + 1)
        return f"{0.0 if abs(value) < step / 100 else value:.{min(digits, 9)}g}"
    decimals = next((digits for digits in range(8) if abs(round(step, digits) - step) < step / 100), 8)
    return f"{value:.{decimals}f}"
