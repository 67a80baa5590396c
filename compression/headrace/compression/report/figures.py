"""How numbers are written in a report."""

from __future__ import annotations

from headrace.compression.benchmarking.ratio import Ratio
from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.report.markup import Content, Markup, element, join
from headrace.compression.search.result import SearchResult


def timed(seconds: float) -> str:
    """Write a time with three digits, in the unit that suits it."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:,.3g} s"


def of_unit(drop: float, evaluation: Evaluation) -> str:
    """Write a drop in its unit: points of a share, per cent of an error."""
    return f"{100 * drop:.2f} {'pt' if evaluation.unit == 'points' else '%'}"


def value_of(value: float, evaluation: Evaluation) -> str:
    """Write a value of a metric."""
    return f"{value:.4f}" if evaluation.unit == "points" else f"{value:.4g}"


def valued(evaluation: Evaluation) -> Markup:
    """Write a metric with its interval."""
    low, high = value_of(evaluation.low, evaluation), value_of(evaluation.high, evaluation)
    return join(value_of(evaluation.value, evaluation), element("small", f"{low} to {high}"))


def dropped(evaluation: Evaluation) -> Content:
    """Write what was lost, with its interval."""
    if evaluation.drop is None or evaluation.drop_low is None or evaluation.drop_high is None:
        return "-"
    low, high = 100 * evaluation.drop_low, 100 * evaluation.drop_high
    return join(of_unit(evaluation.drop, evaluation), element("small", f"{low:.2f} to {high:.2f}"))


def speeded(ratio: Ratio | None) -> Content:
    """Write how many times as fast something is, with its interval."""
    if ratio is None:
        return "-"
    return join(f"{ratio.median:.2f}x", element("small", f"{ratio.low:.2f} to {ratio.high:.2f}"))


def allowed(found: SearchResult) -> str:
    """Write the bound in the unit of the metric."""
    return f"{100 * found.bound:g} {'pt' if found.baseline.unit == 'points' else '%'}"
