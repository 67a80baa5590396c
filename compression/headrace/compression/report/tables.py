"""The tables of a report."""

from __future__ import annotations

from typing import Any, Final

from headrace.compression.benchmarking.compare import Measurement
from headrace.compression.data.dataset import Dataset
from headrace.compression.evaluation.disagreements import Disagreement
from headrace.compression.report.figures import allowed, dropped, speeded, timed, valued
from headrace.compression.report.markup import Content, Markup, element, join, table
from headrace.compression.report.picture import show_row
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import ORIGINAL, SMALLER, Trial, Verdict
from headrace.contracts.formatting import sized

#: Letters of a checksum that are shown; report.json has them all.
_SHA_LETTERS: Final = 16


def attempts_table(found: SearchResult) -> Markup:
    """List all attempts that were measured, the original first."""
    measured = [(attempt, verdict) for attempt, verdict in _pairs(found) if attempt.figures]
    if not measured:
        return element("p", "Nothing could be measured.")
    sizes = [figures.rows for figures in _measurement(measured[0][0]).rows]
    metric = found.baseline.metric
    headings = [
        "recipe",
        *(f"speed at {_rows(size)}" for size in sizes),
        f"rows/s at {found.at_rows}",
        "peak memory",
        "file size",
        f"{metric} (selection)",
        "drop (selection)",
        f"{metric} (test)",
        "drop (test)",
        "verdict",
    ]
    rows = [_original_row(found, _measurement(measured[0][0]))]
    rows += [_attempt_row(attempt, verdict, found) for attempt, verdict in measured]
    return table(headings, rows, numeric=frozenset(range(1, len(sizes) + 4)))


def _pairs(found: SearchResult) -> list[tuple[Trial, Verdict]]:
    return list(zip(found.attempts, found.verdicts, strict=True))


def _measurement(attempt: Trial) -> Measurement:
    assert attempt.measurement is not None
    return attempt.measurement


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _original_row(found: SearchResult, measurement: Measurement) -> list[Content]:
    times = [timed(figures.baseline.seconds) if figures.baseline else "-" for figures in measurement.rows]
    at = measurement.at(found.at_rows).baseline
    memory = measurement.baseline.peak_bytes if measurement.baseline else None
    return [
        element("strong", ORIGINAL),
        *times,
        f"{at.rows_per_second:,.0f}" if at else "-",
        sized(memory) if memory is not None else "-",
        sized(found.original_bytes),
        valued(found.baseline),
        "-",
        valued(found.baseline_test),
        "-",
        "",
    ]


def _attempt_row(attempt: Trial, verdict: Verdict, found: SearchResult) -> list[Content]:
    assert attempt.selection is not None
    measurement = _measurement(attempt)
    name = element("strong", attempt.recipe) if attempt.recipe == found.chosen else attempt.recipe
    chosen = element("span", "chosen", class_="badge") if attempt.recipe == found.chosen else None
    return [
        join(name, " ", chosen, element("small", "; ".join([attempt.summary, *attempt.notes]))),
        *(
            join(speeded(figures.ratio), element("small", timed(figures.candidate.seconds)))
            for figures in measurement.rows
        ),
        f"{measurement.at(found.at_rows).candidate.rows_per_second:,.0f}",
        sized(measurement.candidate.peak_bytes),
        sized(measurement.candidate.file_bytes),
        valued(attempt.selection),
        dropped(attempt.selection),
        valued(attempt.test) if attempt.test else "-",
        dropped(attempt.test) if attempt.test else "-",
        element("span", verdict.reason, class_="pays" if verdict.pays else "refused"),
    ]


def unmeasured_table(found: SearchResult) -> Markup | None:
    """List recipes without figures, and why; None when there is none."""
    rows: list[list[Content]] = [
        [attempt.recipe, attempt.status, attempt.reason] for attempt in found.attempts if attempt.figures is None
    ]
    return table(["recipe", "", "why"], rows) if rows else None


def disagreements_table(attempt: Trial, test: Dataset | None) -> Markup:
    """List rows of which a compressed model says something else. test: the test rows, to show them; None if gone."""
    items = attempt.disagreements
    if not items:
        return element("p", "There are none among the test rows.")
    shown = [show_row(test, item.row) if test is not None and item.row < len(test) else None for item in items]
    columns: list[tuple[str, list[Any]]] = [
        ("the row", shown),
        ("row of the file", [item.origin for item in items]),
        ("label", [_said(item.label, None) for item in items]),
        ("original says", [_said(item.original, item.original_confidence) for item in items]),
        ("compressed says", [_said(item.compressed, item.compressed_confidence) for item in items]),
        ("apart by", [_moved(item) for item in items]),
    ]
    kept = [(title, cells) for title, cells in columns if any(c is not None for c in cells)]
    return table([title for title, _ in kept], [list(row) for row in zip(*(cells for _, cells in kept), strict=True)])


def _said(value: str | float | None, confidence: float | None) -> Content:
    if value is None:
        return None
    text = value if isinstance(value, str) else f"{value:.5g}"
    return text if confidence is None else join(text, element("small", f"{100 * confidence:.1f} %"))


def _moved(item: Disagreement) -> Content:
    return None if item.moved is None else f"{item.moved:.4g}"


def conditions_list(found: SearchResult) -> Markup:
    """Tell on what, with what and on which rows all was measured."""
    record = found.record
    measured = [attempt.measurement for attempt in found.attempts if attempt.measurement]
    fields: list[tuple[str, Content]] = []
    if measured:
        at = measured[-1].conditions
        threads = ", ".join(map(str, at.threads))
        fields += [
            (
                "processor",
                f"{at.processor}, {at.cores} cores may be used, {threads} of them by the model ({at.device})",
            ),
            ("measured", f"until {at.measured_at}, at a load of {at.load:.1f}; Python {at.python}"),
        ]
    baseline = found.baseline
    fields += [
        ("metric", f"{baseline.metric} of output {baseline.output}; a drop of {allowed(found)} is allowed"),
        ("worth it", f"{found.min_speedup:g} times as fast, or {SMALLER:g} times as small and no slower"),
        *([("left out", ", ".join(record["exclude"]))] if record.get("exclude") else []),
        ("seed", str(record.get("seed", ""))),
        ("time spent", f"{sum(attempt.seconds for attempt in found.attempts):,.0f} s on making and measuring"),
        ("original", element("code", str(record.get("original_sha256", ""))[:_SHA_LETTERS])),
    ]
    counts, hashes = record.get("rows", {}), record.get("data_sha256", {})
    fields += [
        (f"{name} rows", join(f"{counts[name]:,} ", element("code", str(hashes.get(name, ""))[:_SHA_LETTERS])))
        for name in counts
    ]
    fields.append(("versions", ", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items())))
    return element("dl", *(join(element("dt", name), element("dd", value)) for name, value in fields))
