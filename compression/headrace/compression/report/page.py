"""The report of a search as a page that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment

from headrace.compression.data.dataset import Dataset
from headrace.compression.evaluation.evaluate import Disagreement
from headrace.compression.report import charts
from headrace.compression.report.figures import conclusion, format_bound, format_drop, format_metric, format_seconds
from headrace.compression.report.rows import Shown, show_row
from headrace.compression.search.result import Found
from headrace.compression.search.trials import ORIGINAL, SMALLER, Attempt
from headrace.contracts.formatting import sized
from headrace.reporting.pages import page_environment

_TEMPLATE: Final = "page.html.j2"


def render(found: Found, test: Dataset | None = None) -> str:
    """Return the page. test: as in `write_report`."""
    pairs = list(zip(found.attempts, found.verdicts, strict=True))
    drawings = {
        "Metric and time": charts.metric_by_time(found),
        "Metric and size": charts.metric_by_size(found),
        "Time by rows": charts.time_by_rows(found),
    }
    content = {
        "conclusion": conclusion(found),
        "bound": format_bound(found),
        "measured": [pair for pair in pairs if pair[0].figures],
        "unmeasured": [attempt for attempt in found.attempts if attempt.figures is None],
        "tested": _tested_first(found),
        "drawings": {caption: drawing for caption, drawing in drawings.items() if drawing is not None},
        "sensitivity": charts.sensitivity_bars(found),
        "original": ORIGINAL,
        "smaller": SMALLER,
    }
    return _environment(test).get_template(_TEMPLATE).render(found=found, **content)


def _tested_first(found: Found) -> list[Attempt]:
    """Return the attempts with test figures, the chosen one first."""
    tested = [attempt for attempt in found.attempts if attempt.test is not None]
    return sorted(tested, key=lambda attempt: attempt.recipe != found.chosen)


def _environment(test: Dataset | None) -> Environment:
    def shown(item: Disagreement) -> list[Shown]:
        return show_row(test, item.row) if test is not None and item.row < len(test) else []

    return page_environment(
        Path(__file__).parent,
        shown=shown,
        seconds=format_seconds,
        bytes=sized,
        metric=format_metric,
        drop=format_drop,
        answer=lambda value: value if isinstance(value, str) else f"{value:.5g}",
    )
