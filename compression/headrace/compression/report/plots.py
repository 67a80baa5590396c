"""What is drawn of a search."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.compression.benchmarking.compare import RowFigures
from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.report.chart import (
    ABOVE,
    BELOW,
    Box,
    Canvas,
    Mark,
    Scale,
    clipped,
    left_margin,
    round_step,
    spread,
    width_of,
)
from headrace.compression.report.figures import allowed, timed, value_of
from headrace.compression.report.markup import Markup
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import ORIGINAL, Trial
from headrace.contracts.formatting import sized

#: Lines that can be told apart in one drawing, and bars that fit.
_LINES: Final = 6
_BARS: Final = 24

#: Pixels of the frames of curves and bars, whose margins are as wide as the names there; and of an operator's name.
_CURVES: Final = 420.0
_BARS_WIDE: Final = 260.0
_OPERATOR: Final = 130.0

#: Beyond these, numbers are written with a power of ten.
_LEAST_STEP: Final = 1e-5
_LARGEST_WRITTEN: Final = 1e6

#: What falls further below the bound than this many times its distance is drawn at the edge, as a triangle.
_BELOW: Final = 3.0


@dataclass(frozen=True)
class Dot:
    """An attempt, or the original, in a plot of its metric against a cost. cost_low, cost_high: its interval."""

    name: str
    style: str
    metric: Evaluation
    cost: float
    cost_low: float
    cost_high: float


def metric_by_time(found: SearchResult) -> Markup | None:
    """Draw the metric against the time of a batch, as a share of the original's; None without figures."""

    def cost(attempt: Trial) -> tuple[float, float, float]:
        assert attempt.measurement is not None
        ratio = attempt.measurement.at(found.at_rows).ratio
        return (1 / ratio.median, 1 / ratio.high, 1 / ratio.low) if ratio else (1.0, 1.0, 1.0)

    dots = _dots(found, cost, 1.0)
    title = f"time of a batch of {found.at_rows} rows, of the original's"
    return _scatter(found, dots, title, lambda share: f"{100 * share:g} %")


def metric_by_size(found: SearchResult) -> Markup | None:
    """Draw the metric against the size of the files; None without figures."""

    def cost(attempt: Trial) -> tuple[float, float, float]:
        assert attempt.measurement is not None
        size = float(attempt.measurement.candidate.file_bytes)
        return size, size, size

    return _scatter(
        found,
        _dots(found, cost, float(found.original_bytes)),
        "size of the files",
        lambda size: sized(size).replace(".0 ", " "),
    )


def _dots(found: SearchResult, cost: Callable[[Trial], tuple[float, float, float]], original: float) -> list[Dot]:
    dots = [Dot(ORIGINAL, "original", found.baseline, original, original, original)]
    for attempt, verdict in zip(found.attempts, found.verdicts, strict=True):
        if attempt.selection is not None and attempt.measurement is not None:
            style = "chosen" if attempt.recipe == found.chosen else "pays" if verdict.pays else "refused"
            dots.append(Dot(attempt.recipe, style, attempt.selection, *cost(attempt)))
    return dots


def worst_allowed(found: SearchResult) -> float:
    """Give the value of the metric at which the bound lies, on the selection rows."""
    baseline = found.baseline
    loss = found.bound if baseline.unit == "points" else found.bound * abs(baseline.value)
    return baseline.value - loss if baseline.higher_is_better else baseline.value + loss


def _scatter(found: SearchResult, dots: list[Dot], title: str, written: Callable[[float], str]) -> Markup | None:
    if len(dots) < 2:
        return None
    metric = found.baseline
    up = _metric_scale(found, dots)
    ticks = [(tick, _tick(tick, up)) for tick in up.ticks()]
    canvas = Canvas(f"{metric.metric} against {title}", left=left_margin(text for _, text in ticks))
    box = canvas.frame
    across = _cost_scale([dot.cost_high for dot in dots], box.left, box.right)
    up = dataclasses.replace(up, start=box.bottom, end=box.top)
    canvas.bottom_axis([(across(tick), written(tick)) for tick in _cost_ticks(across)], title)
    better = "higher" if metric.higher_is_better else "lower"
    canvas.left_axis([(up(tick), text) for tick, text in ticks], f"{metric.metric} ({better} is better)")
    _draw_bound(canvas, up(worst_allowed(found)), f"at most {allowed(found)} lost")
    _draw_front(canvas, found, dots, across, up)
    for dot in dots:
        if up.holds(dot.metric.value):
            x, y = across(dot.cost), up(dot.metric.value)
            canvas.line([(across(dot.cost_low), y), (across(dot.cost_high), y)], f"whisker {dot.style}")
            canvas.line([(x, up(dot.metric.low)), (x, up(dot.metric.high))], f"whisker {dot.style}")
    told = {
        dot.name: f"{dot.name}: {value_of(dot.metric.value, dot.metric)} at {written(_short(dot.cost))}" for dot in dots
    }
    marks = [
        Mark(across(dot.cost), up(dot.metric.value), dot.name, dot.style, not up.holds(dot.metric.value))
        for dot in dots
    ]
    canvas.marks(marks, lambda mark: told[mark.name])
    return canvas.draw()


def _draw_bound(canvas: Canvas, y: float, text: str) -> None:
    box = canvas.frame
    canvas.line([(box.left, y), (box.right, y)], "bound")
    # Nothing takes no time or has no size, so that there is room for words at the left; below the line, if it is there.
    baseline = y + 14 if y + 14 + BELOW <= box.bottom else y - 5
    canvas.text(box.left + 4, baseline, text, style="label bound")
    canvas.taken.append(Box(box.left, baseline - ABOVE, box.left + 4 + width_of(text) + 4, baseline + BELOW))


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _tick(value: float, scale: Scale) -> str:
    step = round_step((scale.high - scale.low) / 5)
    largest = max(abs(scale.low), abs(scale.high))
    if step < _LEAST_STEP or largest >= _LARGEST_WRITTEN:
        digits = max(1, math.ceil(math.log10(max(largest / step, 1))) + 1)
        return f"{0.0 if abs(value) < step / 100 else value:.{min(digits, 9)}g}"
    decimals = next((digits for digits in range(8) if abs(round(step, digits) - step) < step / 100), 8)
    return f"{value:.{decimals}f}"


def _cost_scale(costs: list[float], start: float, end: float) -> Scale:
    return Scale(0.0, 1.08 * max(costs), start, end)


def _cost_ticks(scale: Scale) -> list[float]:
    """Give round values; bytes are round in the unit in which they are written."""
    unit = 1024 ** min(3, int(math.log(scale.high, 1024))) if scale.high >= 1024 else 1
    return [tick * unit for tick in Scale(scale.low / unit, scale.high / unit, 0, 1).ticks()]


def _metric_scale(found: SearchResult, dots: list[Dot]) -> Scale:
    """Show all that is near the bound; what failed by far would squeeze the rest into a line."""
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
    return Scale(low - margin, high + margin, 0.0, 1.0)


def _draw_front(canvas: Canvas, found: SearchResult, dots: list[Dot], across: Scale, up: Scale) -> None:
    """Draw the front of these two figures; that of all three, which `found.front` is, has points off its line."""
    sign = 1 if found.baseline.higher_is_better else -1
    best: float | None = None
    steps: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda dot: (dot.cost, -sign * dot.metric.value)):
        if dot.name not in found.front or (best is not None and sign * dot.metric.value <= best):
            continue
        best = sign * dot.metric.value
        # All that lies on the worse side of this line is beaten by a point on it.
        steps.append((across(dot.cost), steps[-1][1] if steps else up(up.low if sign > 0 else up.high)))
        steps.append((across(dot.cost), up(dot.metric.value)))
    if steps:
        canvas.line([*steps, (canvas.frame.right, steps[-1][1])], "front")


def time_by_rows(found: SearchResult) -> Markup | None:
    """Draw the time of a batch over its rows, of the original and the best; None without figures.

    Attempts were timed in minutes of their own, each beside the original: theirs are the original's times over ratios.
    """
    shown = _lines(found)
    if not shown:
        return None
    sizes = [figures.rows for figures in _rows_of(shown[0])]
    original = [_original_seconds(found, at) for at in range(len(sizes))]
    curves = [(ORIGINAL, "original", original)]
    for attempt in shown:
        ratios = [figures.ratio.median if figures.ratio else 1.0 for figures in _rows_of(attempt)]
        seconds = [base / ratio for base, ratio in zip(original, ratios, strict=True)]
        curves.append((attempt.recipe, "chosen" if attempt.recipe == found.chosen else "other", seconds))
    everything = [value for _, _, values in curves for value in values]
    up = Scale(min(everything) / 1.3, max(everything) * 1.3, 0.0, 1.0, logarithmic=True)
    ticks = [(tick, timed(tick)) for tick in up.ticks()]
    left, right = left_margin(text for _, text in ticks), max(width_of(clipped(name)) for name, _, _ in curves) + 24
    canvas = Canvas("time of a batch over its rows", width=left + _CURVES + right, left=left, right=right)
    box = canvas.frame
    up = dataclasses.replace(up, start=box.bottom, end=box.top)
    places = [box.left + (at + 0.5) * (box.right - box.left) / len(sizes) for at in range(len(sizes))]
    canvas.bottom_axis([(x, str(size)) for x, size in zip(places, sizes, strict=True)], "rows of a batch")
    canvas.left_axis([(up(tick), text) for tick, text in ticks], "time of a batch")
    _draw_curves(canvas, curves, places, up)
    return canvas.draw()


def _draw_curves(
    canvas: Canvas, curves: Sequence[tuple[str, str, list[float]]], places: Sequence[float], up: Scale
) -> None:
    """Draw each curve with its points, and its name at its end."""
    box = canvas.frame
    ends = spread([up(values[-1]) for _, _, values in curves], 14.0, box.top + 6, box.bottom)
    for (name, style, values), end in zip(curves, ends, strict=True):
        points = [(x, up(value)) for x, value in zip(places, values, strict=True)]
        canvas.line(points, f"curve {style}")
        canvas.marks([Mark(x, y, "", style) for x, y in points], lambda _, name=name: name)  # type: ignore[misc]
        canvas.line([points[-1], (places[-1] + 14, end)], "leader")
        canvas.text(places[-1] + 17, end + 4, clipped(name), style=f"label {style}")


def _rows_of(attempt: Trial) -> tuple[RowFigures, ...]:
    assert attempt.measurement is not None
    return attempt.measurement.rows


def _lines(found: SearchResult) -> list[Trial]:
    """Choose what is drawn: the chosen one, then those on the front, then the others, each the fastest first."""
    measured = [attempt for attempt in found.attempts if attempt.figures]

    def place(attempt: Trial) -> tuple[bool, bool, float]:
        point = attempt.point(found.at_rows)
        assert point is not None
        return attempt.recipe != found.chosen, attempt.recipe not in found.front, point.seconds

    return sorted(measured, key=place)[: _LINES - 1]


def _original_seconds(found: SearchResult, at: int) -> float:
    timings = [_rows_of(attempt)[at].baseline for attempt in found.attempts if attempt.figures]
    return statistics.median(timing.seconds for timing in timings if timing is not None)


def sensitivity_bars(found: SearchResult) -> Markup | None:
    """Draw how much int8 in each layer alone changes the outputs, the worst first; None when it isn't known."""
    layers = found.sensitivity[:_BARS]
    if not layers:
        return None
    errors = [10 ** (-layer.sqnr_db / 20) for layer in layers]
    told = [
        f"{100 * error:.2g} % · {layer.sqnr_db:.1f} dB · {clipped(layer.operator, _OPERATOR)}"
        for layer, error in zip(layers, errors, strict=True)
    ]
    names = [clipped(layer.node) for layer in layers]
    left, right = max(map(width_of, names)) + 14, max(map(width_of, told)) + 14
    canvas = Canvas(
        "sensitivity of layers to int8", width=left + _BARS_WIDE + right, height=46.0 + 22 * len(layers), left=left,
        right=right, top=4.0,
    )  # fmt: skip
    box = canvas.frame
    across = Scale(0.0, max(*errors, 1e-12), box.left, box.right)
    canvas.bottom_axis([(across(0.0), "0")], "error of the outputs, of their size")
    for at, (name, text, error) in enumerate(zip(names, told, errors, strict=True)):
        y = box.top + 22 * at + 4
        canvas.line([(box.left, y + 7), (max(across(error), box.left + 1), y + 7)], "bar")
        canvas.text(box.left - 7, y + 11, name, anchor="end")
        canvas.text(across(error) + 7, y + 11, text)
    return canvas.draw()
