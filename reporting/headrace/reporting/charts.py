"""Charts as SVG, drawn by matplotlib's objects: without pyplot, which would keep each figure for the process.

Names come from users: text is never read as TeX, and everything is escaped. Colours are variables of the page's style,
so that charts follow its light, dark and print schemes.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform

from headrace.reporting.layout import ABOVE, BELOW, FAR, LINE, Box, around, free_place, spread
from headrace.reporting.text import LETTER, NAME_LETTERS, cleaned, shortened, width_of

#: Units of the SVG in an inch: positions in a chart are pixels at this resolution.
_DPI: Final = 72

#: Where the turned title of the left axis ends.
_TITLE_RIGHT: Final = 20.0

_RADIUS: Final = 5.0
_FONT_SIZE: Final = 12
_BAR_HEIGHT: Final = 22.0

_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))

#: Settings and warnings are the process's own, so that one chart at a time is written.
_WRITING: Final = threading.Lock()

_COLOUR: Final = re.compile(r"(fill|stroke): #0000f([0-7])")
_FAMILY: Final = re.compile(r" font-family: [^;\"]*;")
_GROUP: Final = re.compile(r'<g id="([^"]*)">')
_OWN_STYLE: Final = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)


class Colour(StrEnum):
    """Colours by their use; when the chart is written each becomes the style variable of its name."""

    INK = "#0000f0"
    SOFT = "#0000f1"
    RULE = "#0000f2"
    PAGE = "#0000f3"
    BLUE = "#0000f4"
    GREEN = "#0000f5"
    RED = "#0000f6"
    GREY = "#0000f7"


@dataclass(frozen=True)
class Margins:
    """Room around the frame, for ticks, titles and labels."""

    left: float = 64.0
    right: float = 20.0
    top: float = 16.0
    bottom: float = 46.0


@dataclass(frozen=True)
class Point:
    """A point with its name. details: shown by a pointer over it. beyond: whether it lies below the frame."""

    x: float
    y: float
    name: str
    colour: Colour
    details: str = ""
    beyond: bool = False


@dataclass(frozen=True)
class Curve:
    """A named line through values, one for each tick of the bottom axis."""

    name: str
    values: Sequence[float]
    colour: Colour


@dataclass(frozen=True)
class Bar:
    """A bar with its name at the left and a note at its end."""

    name: str
    value: float
    note: str


def left_margin(ticks: Iterable[str]) -> float:
    """Return the left margin of a chart with these ticks and a title on its left axis."""
    return max(64.0, _TITLE_RIGHT + max(map(width_of, ticks), default=0.0) + 7)


class Chart:
    """A chart in the making; `axes` are matplotlib's, all text goes through `text`. Values beyond lie on the edge."""

    def __init__(
        self, title: str, size: tuple[float, float], across: tuple[float, float], up: tuple[float, float],
        margins: Margins | None = None, *, logarithmic: bool = False,
    ) -> None:  # fmt: skip
        """title: read by screen readers. size: of the frame. across, up: limits of the axes."""
        edge = margins or Margins()
        self.title = title
        self.frame = Box(edge.left, edge.bottom, edge.left + size[0], edge.bottom + size[1])
        self.width, self.height = self.frame.right + edge.right, self.frame.top + edge.top
        self.taken: list[Box] = []
        self._groups: dict[str, str] = {}
        self.figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI)
        place = (edge.left / self.width, edge.bottom / self.height, size[0] / self.width, size[1] / self.height)
        self.axes = self.figure.add_axes(place, xlim=across, ylim=up, yscale="log" if logarithmic else "linear")
        self.axes.set_axis_off()
        self.figure.patch.set_visible(False)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return where a value lies, at the edge of the frame if it is beyond."""
        (low, high), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        across, up = self.axes.transData.transform((min(max(x, low), high), min(max(y, bottom), top)))
        return float(across), float(up)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, style: str = "", **how: Any) -> None:
        """Draw a line through values. style: its class in the SVG. how: properties of a matplotlib line."""
        self._line([self.pixel(x, y) for x, y in points], colour, gid=self._group(style), **how)

    def _line(self, pixels: Sequence[tuple[float, float]], colour: Colour, **how: Any) -> None:
        xs, ys = zip(*pixels, strict=True)
        how = {"linewidth": 1, "solid_capstyle": "butt", "clip_on": False, "transform": IdentityTransform(), **how}
        self.axes.plot(xs, ys, color=colour, scalex=False, scaley=False, **how)

    def text(self, at: tuple[float, float], text: str, colour: Colour = Colour.INK, **how: Any) -> None:
        """Write on a baseline that begins at a pixel. how: properties of a matplotlib text."""
        words = " ".join(cleaned(text).split())
        how = {"fontsize": _FONT_SIZE, "va": "baseline", "rotation_mode": "anchor", **how}
        self.axes.text(*at, words, color=colour, parse_math=False, transform=IdentityTransform(), **how)

    def bottom_axis(self, ticks: Sequence[tuple[float, str]], title: str) -> None:
        """Mark values below the frame, and name the axis; ticks without room have no text."""
        box, free = self.frame, 0.0
        for value, text in sorted(ticks):
            x, half = self.pixel(value, 0)[0], width_of(text) / 2
            self._line([(x, box.bottom), (x, box.top)], Colour.RULE, zorder=0)
            if x - half >= free and x + half <= self.width:
                self.text((x, box.bottom - 18), text, Colour.SOFT, ha="center")
                free = x + half + LETTER
        middle = (box.left + box.right) / 2
        room = 2 * min(middle, self.width - middle)
        self.text((middle, 8), shortened(title, room), Colour.SOFT, ha="center")

    def left_axis(self, ticks: Sequence[tuple[float, str]], title: str) -> None:
        """Mark values beside the frame, and name the axis; ticks without room have no text."""
        box, free = self.frame, 0.0
        for value, text in sorted(ticks):
            y = self.pixel(0, value)[1]
            self._line([(box.left, y), (box.right, y)], Colour.RULE, zorder=0)
            if y - 4 - BELOW >= free:
                self.text((box.left - 7, y - 4), text, Colour.SOFT, ha="right")
                free = y - 4 + ABOVE
        middle = (box.top + box.bottom) / 2
        self.text((14, middle), shortened(title, self.height), Colour.SOFT, ha="center", rotation=90)

    def note(self, y: float, text: str, colour: Colour) -> None:
        """Write beside a horizontal line at the left of the frame: below it, if there is room."""
        line = self.pixel(0, y)[1]
        baseline = line - 14 if line - 14 - BELOW >= self.frame.bottom else line + 5
        self.text((self.frame.left + 4, baseline), text, colour)
        right = self.frame.left + 8 + width_of(text)
        self.taken.append(Box(self.frame.left, baseline - BELOW, right, baseline + ABOVE))

    def points(self, points: Sequence[Point]) -> None:
        """Draw points, each with its name beside it where there is room."""
        places = [self.pixel(point.x, point.y) for point in points]
        for point, place in zip(points, places, strict=True):
            self._marker(point, *place)
        taken = [*self.taken, *(around(x, y, _RADIUS + 1) for x, y in places)]
        for point, at in zip(points, places, strict=True):
            room = free_place(*at, shortened(point.name), taken, self.frame) if point.name else None
            if room is not None:
                taken.append(room)
                self._label(point, at, room)

    def _marker(self, point: Point, x: float, y: float) -> None:
        # A triangle points downwards, to where its value lies.
        shape, x_y = ("v", ([x], [y + 4])) if point.beyond else ("o", ([x], [y]))
        self.axes.plot(
            *x_y,
            shape,
            markersize=2 * _RADIUS,
            color=point.colour,
            markeredgecolor=Colour.PAGE,
            clip_on=False,
            transform=IdentityTransform(),
            gid=self._group("point beyond" if point.beyond else "point", point.details),
            scalex=False,
            scaley=False,
            zorder=3,
        )

    def _label(self, point: Point, at: tuple[float, float], place: Box) -> None:
        middle = ((place.left + place.right) / 2, (place.bottom + place.top) / 2)
        if math.dist(middle, at) > FAR + (place.right - place.left) / 2:
            self._line([at, (min(max(at[0], place.left), place.right), middle[1])], Colour.GREY, linewidth=0.7)
        self.text((middle[0], place.bottom + BELOW), shortened(point.name), point.colour, ha="center")

    def curves(self, curves: Sequence[Curve]) -> None:
        """Draw curves over 0, 1, 2 … of the bottom axis, each with its name at its end in the right margin."""
        ends = [self.pixel(len(curve.values) - 1, curve.values[-1]) for curve in curves]
        heights = spread([y for _, y in ends], LINE + 1, self.frame.bottom, self.frame.top - 6)
        for curve, (x, y), height in zip(curves, ends, heights, strict=True):
            values = [(float(at), value) for at, value in enumerate(curve.values)]
            self.line(values, curve.colour, "curve", linewidth=1.6)
            self.points([Point(*value, "", curve.colour, curve.name) for value in values])
            self._line([(x, y), (x + 14, height)], Colour.GREY, linewidth=0.7)
            self.text((x + 17, height - 4), shortened(curve.name), curve.colour)

    def _group(self, style: str, details: str = "") -> str | None:
        """Name a group whose start tag gets a class and a title when the chart is written."""
        if not style:
            return None
        name = f"headrace-{len(self._groups)}"
        title = Markup("<title>{}</title>").format(cleaned(details)) if details else ""
        self._groups[name] = Markup('<g class="{}">{}').format(style, title)
        return name

    def svg(self) -> Markup:
        """Return the chart as an element of a page."""
        buffer = io.StringIO()
        # Text stays text, to be found and read aloud; a constant salt makes the same chart the same file.
        settings = mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headrace"})
        with _WRITING, settings, warnings.catch_warnings():
            # Letters that matplotlib's font lacks are drawn by the browser's fonts.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            self.figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        drawn = buffer.getvalue()
        body = _OWN_STYLE.sub("", drawn[drawn.index(">", drawn.index("<svg")) + 1 :], count=1)
        body = _GROUP.sub(lambda found: self._groups.get(found[1], "<g>"), body)
        body = _COLOUR.sub(lambda found: f"{found[1]}: var(--{list(Colour)[int(found[2])].name.lower()})", body)
        body = _FAMILY.sub("", body).replace("<use xlink:href=", "<use href=")
        title = escape(cleaned(self.title))
        size = f"0 0 {self.width:g} {self.height:g}"
        start = f'<svg viewBox="{size}" role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg">'
        return Markup(f"{start}<title>{title}</title>{body.strip()}")  # noqa: S704  (all text in it is escaped)


def line_chart(
    curves: Sequence[Curve], across: Sequence[str], up: Sequence[tuple[float, str]], **titles: str
) -> Markup:
    """Draw curves over equally spaced ticks, on a logarithmic left axis.

    across: text of each bottom tick. up: ticks of the left axis. titles: title (of all), bottom, left.
    """
    values = [value for curve in curves for value in curve.values]
    room = max(width_of(shortened(curve.name)) for curve in curves) + 24
    chart = Chart(
        titles["title"],
        (420.0, 318.0),
        (-0.5, len(across) - 0.5),
        (min(values) / 1.3, max(values) * 1.3),
        Margins(left=left_margin(text for _, text in up), right=room),
        logarithmic=True,
    )
    chart.bottom_axis([(float(at), text) for at, text in enumerate(across)], titles["bottom"])
    chart.left_axis(up, titles["left"])
    chart.curves(curves)
    return chart.svg()


def bar_chart(title: str, bars: Sequence[Bar], axis: str) -> Markup:
    """Draw horizontal bars, the first at the top. axis: title of the axis, which begins at 0."""
    most = max(*(bar.value for bar in bars), 1e-12)
    names = [shortened(bar.name, NAME_LETTERS * LETTER) for bar in bars]
    margins = Margins(
        left=max(map(width_of, names)) + 14, right=max(width_of(bar.note) for bar in bars) + 14, top=4.0, bottom=42.0
    )
    height = _BAR_HEIGHT * len(bars)
    chart = Chart(title, (260.0, height), (0.0, most), (0.0, height), margins)
    chart.bottom_axis([(0.0, "0")], axis)
    for at, (bar, name) in enumerate(zip(bars, names, strict=True)):
        y = height - _BAR_HEIGHT * at - 11
        chart.line([(0.0, y), (max(bar.value, most / 260), y)], Colour.BLUE, "bar", linewidth=13)
        x, up = chart.pixel(bar.value, y)
        chart.text((chart.frame.left - 7, up - 4), name, ha="right")
        chart.text((x + 7, up - 4), bar.note)
    return chart.svg()
