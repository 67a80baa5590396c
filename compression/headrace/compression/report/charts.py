"""The charts of a search: metric against time and size, time by rows, sensitivity of layers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from headrace.compression.benchmarking.compare import RowFigures
from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.report.figures import format_bound, format_metric, format_seconds
from headrace.compression.search.result import Found
from headrace.compression.search.trials import ORIGINAL, Attempt
from headrace.contracts.formatting import sized
from headrace.reporting.charts import Bar, Chart, Colour, Curve, Margins, Point, bar_chart, left_margin, line_chart
from headrace.reporting.layout import log_ticks, round_ticks, tick_text
from headrace.reporting.text import shortened

#: Lines that can be told apart in one chart, and bars that fit.
_LINES: Final = 6
_BARS: Final = 24

#: Width of the name of an operator.
_OPERATOR: Final = 130.0

#: A metric that falls below the bound by more than this many times its distance is drawn at the edge, as a triangle.
_BELOW: Final = 3.0

_FRAME: Final = (556.0, 318.0)


@dataclass(frozen=True)
class Dot:
    """An attempt, or the original, in a chart of its metric against a cost. cost_low, cost_high: its interval."""

    name: str
    colour: Colour
    metric: Evaluation
    cost: float
    cost_low: float
    cost_high: float


def metric_by_time(found: Found) -> Markup | None:
    """Draw the metric against the time of a batch, as a share of the original's; None without figures."""

    def cost(attempt: Attempt) -> tuple[float, float, float]:
        assert attempt.measurement is not None
        ratio = attempt.measurement.at(found.at_rows).ratio
        return (1 / ratio.median, 1 / ratio.high, 1 / ratio.low) if ratio else (1.0, 1.0, 1.0)

    title = f"time of a batch of {found.at_rows} rows, of the original's"
    return _scatter(found, _dots(found, cost, 1.0), title, lambda share: f"{100 * share:g} %")


def metric_by_size(found: Found) -> Markup | None:
    """Draw the metric against the size of the files; None without figures."""

    def cost(attempt: Attempt) -> tuple[float, float, float]:
        assert attempt.measurement is not None
        size = float(attempt.measurement.candidate.file_bytes)
        return size, size, size

    dots = _dots(found, cost, float(found.original_bytes))
    return _scatter(found, dots, "size of the files", lambda size: sized(size).replace(".0 ", " "))


def _dots(found: Found, cost: Callable[[Attempt], tuple[float, float, float]], original: float) -> list[Dot]:
    dots = [Dot(ORIGINAL, Colour.INK, found.baseline, original, original, original)]
    for attempt, verdict in zip(found.attempts, found.verdicts, strict=True):
        if attempt.selection is not None and attempt.measurement is not None:
            chosen = attempt.recipe == found.chosen
            colour = Colour.GREEN if chosen else Colour.BLUE if verdict.pays else Colour.GREY
            dots.append(Dot(attempt.recipe, colour, attempt.selection, *cost(attempt)))
    return dots


def worst_allowed(found: Found) -> float:
    """Return the value of the metric at which the bound lies, on the selection rows."""
    baseline = found.baseline
    loss = found.bound if baseline.unit == "points" else found.bound * abs(baseline.value)
    return baseline.value - loss if baseline.higher_is_better else baseline.value + loss


def _scatter(found: Found, dots: list[Dot], title: str, written: Callable[[float], str]) -> Markup | None:
    if len(dots) < 2:
        return None
    metric = found.baseline
    low, high = _metric_limits(found, dots)
    ticks = [(tick, tick_text(tick, low, high)) for tick in round_ticks(low, high)]
    most = 1.08 * max(dot.cost_high for dot in dots)
    margins = Margins(left=left_margin(text for _, text in ticks))
    chart = Chart(f"{metric.metric} against {title}", _FRAME, (0.0, most), (low, high), margins)
    chart.bottom_axis([(tick, written(tick)) for tick in _cost_ticks(most)], title)
    better = "higher" if metric.higher_is_better else "lower"
    chart.left_axis(ticks, f"{metric.metric} ({better} is better)")
    bound = worst_allowed(found)
    chart.line([(0.0, bound), (most, bound)], Colour.RED, "bound", linestyle=(0, (6, 4)))
    chart.note(bound, f"at most {format_bound(found)} lost", Colour.RED)
    _draw_front(chart, found, dots, most, low if metric.higher_is_better else high)
    for dot in dots:
        value = dot.metric.value
        if low <= value <= high:
            chart.line([(dot.cost_low, value), (dot.cost_high, value)], dot.colour, "whisker", alpha=0.55)
            chart.line([(dot.cost, dot.metric.low), (dot.cost, dot.metric.high)], dot.colour, "whisker", alpha=0.55)
    chart.points([_point(dot, written, beyond=not low <= dot.metric.value <= high) for dot in dots])
    return chart.svg()


def _point(dot: Dot, written: Callable[[float], str], *, beyond: bool) -> Point:
    value = dot.metric.value
    cost = written(float(f"{dot.cost:.3g}"))
    return Point(
        dot.cost, value, dot.name, dot.colour, f"{dot.name}: {format_metric(value, dot.metric)} at {cost}", beyond
    )


def _cost_ticks(most: float) -> list[float]:
    """Return round values; bytes are round in the unit in which they are written."""
    unit = 1024 ** min(3, int(math.log(most, 1024))) if most >= 1024 else 1
    return [tick * unit for tick in round_ticks(0.0, most / unit)]


def _metric_limits(found: Found, dots: list[Dot]) -> tuple[float, float]:
    """Choose limits near the bound; those that failed by far would squeeze the others into a line."""
    values = [dot.metric.value for dot in dots]
    baseline, bound = found.baseline.value, worst_allowed(found)
    spare = max(abs(bound - baseline), abs(found.baseline.high - found.baseline.low) / 4, 1e-3 * abs(baseline), 1e-9)
    # Towards the worse side the view ends at the limit, or earlier if nothing lies there.
    if found.baseline.higher_is_better:
        low = max(min([*values, bound]), bound - _BELOW * spare)
        high = max([*values, baseline])
    else:
        low = min([*values, baseline])
        high = min(max([*values, bound]), bound + _BELOW * spare)
    margin = max(0.12 * (high - low), spare / 3)
    return low - margin, high + margin


def _draw_front(chart: Chart, found: Found, dots: list[Dot], most: float, worst: float) -> None:
    """Draw the front of these two figures; that of all three, which `found.front` is, has points off its line."""
    sign = 1 if found.baseline.higher_is_better else -1
    best: float | None = None
    steps: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda dot: (dot.cost, -sign * dot.metric.value)):
        if dot.name not in found.front or (best is not None and sign * dot.metric.value <= best):
            continue
        best = sign * dot.metric.value
        # All that lies on the worse side of this line is beaten by a point on it.
        steps += [(dot.cost, steps[-1][1] if steps else worst), (dot.cost, dot.metric.value)]
    if steps:
        chart.line([*steps, (most, steps[-1][1])], Colour.BLUE, "front", linewidth=1.5)


def time_by_rows(found: Found) -> Markup | None:
    """Draw the time of a batch over its rows, of the original and the best; None without figures.

    Attempts were timed in minutes of their own, each beside the original: theirs are the original's times over ratios.
    """
    shown = _lines(found)
    if not shown:
        return None
    sizes = [figures.rows for figures in _rows_of(shown[0])]
    original = [_original_seconds(found, at) for at in range(len(sizes))]
    curves = [Curve(ORIGINAL, original, Colour.INK)]
    for attempt in shown:
        ratios = [figures.ratio.median if figures.ratio else 1.0 for figures in _rows_of(attempt)]
        seconds = [base / ratio for base, ratio in zip(original, ratios, strict=True)]
        curves.append(Curve(attempt.recipe, seconds, Colour.GREEN if attempt.recipe == found.chosen else Colour.GREY))
    values = [value for curve in curves for value in curve.values]
    ticks = [(tick, format_seconds(tick)) for tick in log_ticks(min(values) / 1.3, max(values) * 1.3)]
    titles = {"title": "time of a batch over its rows", "bottom": "rows of a batch", "left": "time of a batch"}
    return line_chart(curves, [str(size) for size in sizes], ticks, **titles)


def _rows_of(attempt: Attempt) -> tuple[RowFigures, ...]:
    assert attempt.measurement is not None
    return attempt.measurement.rows


def _lines(found: Found) -> list[Attempt]:
    """Choose the attempts to draw: the chosen one, then those on the front, then the others, each the fastest first."""
    measured = [attempt for attempt in found.attempts if attempt.figures]

    def place(attempt: Attempt) -> tuple[bool, bool, float]:
        point = attempt.point(found.at_rows)
        assert point is not None
        return attempt.recipe != found.chosen, attempt.recipe not in found.front, point.seconds

    return sorted(measured, key=place)[: _LINES - 1]


def _original_seconds(found: Found, at: int) -> float:
    timings = [_rows_of(attempt)[at].baseline for attempt in found.attempts if attempt.figures]
    return statistics.median(timing.seconds for timing in timings if timing is not None)


def sensitivity_bars(found: Found) -> Markup | None:
    """Draw how much int8 in each layer alone changes the outputs, the worst first; None when it isn't known."""
    layers = found.sensitivity[:_BARS]
    if not layers:
        return None
    bars = []
    for layer in layers:
        error = 10 ** (-layer.sqnr_db / 20)
        note = f"{100 * error:.2g} % · {layer.sqnr_db:.1f} dB · {shortened(layer.operator, _OPERATOR)}"
        bars.append(Bar(layer.node, error, note))
    return bar_chart("sensitivity of layers to int8", bars, "error of the outputs, of their size")
