"""Numbers of a report in words, and the verdict in a sentence."""

from __future__ import annotations

from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.search.result import Found
from headrace.compression.search.trials import Attempt


def format_seconds(seconds: float) -> str:
    """Write a time with three digits, in the unit that suits it."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:,.3g} s"


def format_drop(drop: float, evaluation: Evaluation) -> str:
    """Write a drop in its unit: points of a share, per cent of an error."""
    return f"{100 * drop:.2f} {'pt' if evaluation.unit == 'points' else '%'}"


def format_metric(value: float, evaluation: Evaluation) -> str:
    """Write a value of a metric."""
    return f"{value:.4f}" if evaluation.unit == "points" else f"{value:.4g}"


def format_bound(found: Found) -> str:
    """Write the bound in the unit of the metric."""
    return f"{100 * found.bound:g} {'pt' if found.baseline.unit == 'points' else '%'}"


def conclusion(found: Found) -> str:
    """Return a sentence on what was chosen, with its gain and cost, or that nothing pays."""
    attempt = found.winner
    if attempt is None or attempt.measurement is None:
        if not any(tried.figures for tried in found.attempts):
            return "No recipe could be measured; the original stays as it is."
        return "No recipe was worth it and within the bound; the original stays as it is."
    return f"{attempt.recipe} pays: {_gain(attempt, found)}{_cost(attempt, found)}."


def _gain(attempt: Attempt, found: Found) -> str:
    assert attempt.measurement is not None
    ratio = attempt.measurement.at(found.at_rows).ratio
    parts = []
    if ratio is not None:
        parts.append(
            f"{ratio.median:.2f} times as fast as the original at {found.at_rows} rows "
            f"({ratio.low:.2f} to {ratio.high:.2f})"
        )
    size = attempt.measurement.candidate.file_bytes
    if size:
        parts.append(f"{found.original_bytes / size:.1f} times as small")
    return ", ".join(parts)


def _cost(attempt: Attempt, found: Found) -> str:
    test, before = attempt.test, found.baseline_test
    if test is None or test.drop is None:
        return ""
    values = f"{format_metric(before.value, before)} to {format_metric(test.value, test)}"
    return (
        f"; on {test.rows} test rows {test.metric} went from {values}, a drop of {format_drop(test.drop, test)} "
        f"where {format_bound(found)} was allowed"
    )
