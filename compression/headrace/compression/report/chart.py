"""Scales, axes, points, lines and bars as SVG. Pure; colours are classes of the page's style."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.compression.report.markup import Content, Markup, element

#: Of a letter in labels, at their font size; wide enough for most fonts, so that labels don't overlap. Letters of
#: Chinese, Japanese and Korean are as wide as high.
LETTER: Final = 7.2
_WIDE_LETTER: Final = 13.0

#: What a line of text takes above and below its baseline.
ABOVE: Final = 10.0
BELOW: Final = 3.0
_LINE: Final = ABOVE + BELOW

#: Where the turned title of the left axis ends.
_TITLE_RIGHT: Final = 20.0

#: Letters of a name in a drawing; longer ones are cut, see `clipped`.
NAME_LETTERS: Final = 40

#: Where a label may stand beside its point: directions and distances, the nearest first.
_DIRECTIONS: Final = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_DISTANCES: Final = (9.0, 20.0, 34.0, 50.0)


@dataclass(frozen=True)
class Scale:
    """Maps values low…high to pixels start…end; values beyond are moved to the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Give the pixel of a value."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)

    def holds(self, value: float) -> bool:
        """Tell whether a value is within."""
        return self.low <= value <= self.high

    def ticks(self) -> list[float]:
        """Give round values to mark, about five."""
        if self.logarithmic:
            return _log_ticks(self.low, self.high)
        step = round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(rough: float) -> float:
    """Give the next 1, 2 or 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(ticks) >= 3:
            return ticks
    return ticks


def width_of(text: str) -> float:
    """Return how wide a text is at most, in pixels."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return (len(text) - wide) * LETTER + wide * _WIDE_LETTER


def clipped(name: str, room: float = NAME_LETTERS * LETTER) -> str:
    """Shorten a name to so many pixels; its end tells more than its beginning."""
    if width_of(name) <= room:
        return name
    while name and width_of(f"…{name}") > room:
        name = name[1:]
    return f"…{name}"


@dataclass(frozen=True)
class Box:
    """A rectangle on the page, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Tell whether two overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Tell whether it lies in another whole."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


def left_margin(ticks: Iterable[str]) -> float:
    """Return how far from the left a frame begins whose left axis has such marks and a title."""
    return max(64.0, _TITLE_RIGHT + max(map(width_of, ticks), default=0.0) + 7)


@dataclass(frozen=True)
class Mark:
    """A point to draw: where, its name, the class of its style, and whether it lies outside the scale."""

    x: float
    y: float
    name: str
    style: str
    outside: bool = False


@dataclass
class Canvas:
    """A drawing with a frame for data; shapes are added in the order in which they lie on each other.

    taken: places that names of points keep clear of.
    """

    title: str
    width: float = 640.0
    height: float = 380.0
    left: float = 64.0
    right: float = 20.0
    top: float = 16.0
    bottom: float = 46.0
    shapes: list[Markup] = field(default_factory=list)
    taken: list[Box] = field(default_factory=list)

    @property
    def frame(self) -> Box:
        """Where data are drawn."""
        return Box(self.left, self.top, self.width - self.right, self.height - self.bottom)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Draw a line through pixels."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.shapes.append(element("polyline", points=path, class_=style))

    def text(self, x: float, y: float, content: Content, *, anchor: str = "start", style: str = "label") -> None:
        """Write at a pixel. anchor: start, middle or end."""
        self.shapes.append(element("text", content, x=x, y=y, text_anchor=anchor, class_=style))

    def bottom_axis(self, at: Sequence[tuple[float, str]], title: str) -> None:
        """Mark pixels below the frame and name what they count; marks without room stay unnamed."""
        box = self.frame
        free = 0.0
        for x, text in sorted(at):
            self.line([(x, box.top), (x, box.bottom)], "grid")
            half = width_of(text) / 2
            if x - half >= free and x + half <= self.width:
                self.text(x, box.bottom + 18, text, anchor="middle", style="tick")
                free = x + half + LETTER
        middle = (box.left + box.right) / 2
        room = 2 * min(middle, self.width - middle)
        self.text(middle, self.height - 8, clipped(title, room), anchor="middle", style="axis")

    def left_axis(self, at: Sequence[tuple[float, str]], title: str) -> None:
        """Mark pixels beside the frame and name what they count; marks without room stay unnamed."""
        box = self.frame
        free = self.height
        for y, text in sorted(at, reverse=True):
            self.line([(box.left, y), (box.right, y)], "grid")
            if y + 4 + BELOW <= free:
                self.text(box.left - 7, y + 4, text, anchor="end", style="tick")
                free = y + 4 - ABOVE
        title = clipped(title, self.height)
        middle = (box.top + box.bottom) / 2
        turned = element(
            "text", title, transform=f"translate(14 {middle:.1f}) rotate(-90)", text_anchor="middle", class_="axis"
        )
        self.shapes.append(turned)

    def marks(self, marks: Sequence[Mark], told: Callable[[Mark], str]) -> None:
        """Draw points, each with its name beside it where there is room. told: what a pointer over one shows."""
        taken = [*self.taken]
        taken += [Box(mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6) for mark in marks]
        for mark in marks:
            shape = (
                element("path", d=_triangle(mark), class_=mark.style)
                if mark.outside
                else element("circle", cx=mark.x, cy=mark.y, r=5, class_=mark.style)
            )
            self.shapes.append(element("g", element("title", told(mark)), shape))
        for whole in marks:
            mark = dataclasses.replace(whole, name=clipped(whole.name))
            place = self._room_for(mark, taken)
            if place is None:
                continue
            taken.append(place)
            middle = ((place.left + place.right) / 2, (place.top + place.bottom) / 2)
            if math.dist(middle, (mark.x, mark.y)) > _DISTANCES[1] + (place.right - place.left) / 2:
                self.line([(mark.x, mark.y), (_nearest(mark.x, place.left, place.right), middle[1])], "leader")
            self.text(middle[0], place.bottom - BELOW, mark.name, anchor="middle", style=f"label {mark.style}")

    def _room_for(self, mark: Mark, taken: Sequence[Box]) -> Box | None:
        half = width_of(mark.name) / 2
        for distance in _DISTANCES:
            for right, down in _DIRECTIONS:
                x, y = mark.x + right * (distance + half), mark.y + down * (distance + (0 if right else _LINE / 2 - 2))
                place = Box(x - half, y - _LINE / 2, x + half, y + _LINE / 2)
                if place.within(self.frame) and not any(place.meets(other) for other in taken):
                    return place
        return None

    def draw(self) -> Markup:
        """Give the whole drawing; screen readers are told its title."""
        return element(
            "svg",
            element("title", self.title),
            *self.shapes,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            role="img",
            aria_label=self.title,
            xmlns="http://www.w3.org/2000/svg",
        )


def _triangle(mark: Mark) -> str:
    """Point downwards: what is meant lies below."""
    return f"M{mark.x - 6:.1f} {mark.y - 9:.1f}h12l-6 10z"


def _nearest(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


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
