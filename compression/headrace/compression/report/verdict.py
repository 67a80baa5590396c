"""What came out of a search, in a sentence."""

from __future__ import annotations

from headrace.compression.report.figures import allowed, of_unit, value_of
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import Trial


def sentence(found: SearchResult) -> str:
    """Say what was chosen and what it brings and costs, or that nothing pays."""
    attempt = found.winner
    if attempt is None or attempt.measurement is None:
        if not any(tried.figures for tried in found.attempts):
            return "No recipe could be measured; the original stays as it is."
        return "No recipe was worth it and within the bound; the original stays as it is."
    return f"{attempt.recipe} pays: {_gain(attempt, found)}{_cost(attempt, found)}."


def _gain(attempt: Trial, found: SearchResult) -> str:
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


def _cost(attempt: Trial, found: SearchResult) -> str:
    test, before = attempt.test, found.baseline_test
    if test is None or test.drop is None:
        return ""
    values = f"{value_of(before.value, before)} to {value_of(test.value, test)}"
    return (
        f"; on {test.rows} test rows {test.metric} went from {values}, a drop of {of_unit(test.drop, test)} "
        f"where {allowed(found)} was allowed"
    )
