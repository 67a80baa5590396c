"""The outcome of a search on the terminal: a table of all that was measured, and what was promoted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.cli.terminal.console import out, print_fields, print_json, print_table, say
from headrace.compression.errors import CompressionError
from headrace.contracts import ModelPackage
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    from headrace.compression.search.search import SearchResult
    from headrace.compression.search.trials import Trial, Verdict

#: Columns between two of a table; and those that a reason gets on the narrowest terminal.
_GAP: Final = 2
_LEAST_REASON: Final = 24


def refuse_unmeasured(found: SearchResult) -> None:
    """Raise CompressionError if the only recipe that was asked for could not be measured."""
    if len(found.attempts) == 1 and found.attempts[0].figures is None:
        raise CompressionError(f"{found.attempts[0].recipe}: {found.attempts[0].reason}")


def show_outcome(found: SearchResult, pages: Path, promoted: ModelPackage | None, *, as_json: bool) -> None:
    """Print the outcome. pages: the report for people. promoted: the new version, or None."""
    if as_json:
        document: dict[str, Any] = {
            **msgspec.to_builtins(found),
            "report": str(pages),
            "promoted": {"name": promoted.name, "version": promoted.version, "folder": str(promoted.folder)}
            if promoted
            else None,
        }
        print_json(document)
        return
    columns = ("recipe", "time", "rows/s", "memory", "size", found.baseline.metric, "drop", "verdict")
    pairs = zip(found.attempts, found.verdicts, strict=True)
    rows = [_row(attempt, verdict, found.at_rows) for attempt, verdict in pairs]
    print_table(columns, _fitted(columns, rows), "nothing could be measured; the report says why")
    _conclude(found, pages, promoted)


def _row(attempt: Trial, verdict: Verdict, at_rows: int) -> tuple[object, ...]:
    if attempt.figures is None:
        return (attempt.recipe, *"-" * 6, verdict.reason)
    selection, measurement = attempt.figures
    figures = measurement.at(at_rows)
    return (
        attempt.recipe,
        f"{figures.ratio.median:.2f}x" if figures.ratio else "-",
        f"{figures.candidate.rows_per_second:,.0f}",
        sized(measurement.candidate.peak_bytes),
        sized(measurement.candidate.file_bytes),
        f"{selection.value:.4f}",
        f"{100 * (selection.drop or 0.0):+.2f}",
        verdict.reason,
    )


def _fitted(columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Cut the reason of each recipe so that its row stays one line; the report has it in full."""
    others = sum(
        max(len(str(cell)) for cell in (name, *(row[at] for row in rows))) + _GAP
        for at, name in enumerate(columns[:-1])
    )
    room = max(out().width - others, _LEAST_REASON)
    return [(*row[:-1], clipped(str(row[-1]), room)) for row in rows]


def clipped(text: str, room: int) -> str:
    """Cut a text that is longer than its room."""
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"


def _conclude(found: SearchResult, pages: Path, promoted: ModelPackage | None) -> None:
    baseline = found.baseline_test
    lines: list[tuple[str, object]] = [
        ("original", f"{found.origin}: {baseline.describe()} on {baseline.rows} test rows")
    ]
    if not found.chosen:
        lines.append(("chosen", "none: no recipe was worth it and within the bound; the original stays as it is"))
    else:
        attempt = found.winner
        assert attempt is not None
        lines.append(("chosen", f"{found.chosen}: {_gain(attempt, found.at_rows)}"))
        if attempt.test is not None:
            lines.append(("test", f"{attempt.test.describe()} on {attempt.test.rows} rows"))
        lines += [("note", note) for note in attempt.notes]
    if promoted is not None:
        lines.append(("new version", f"{promoted.name} {promoted.version} in {promoted.folder}"))
    lines.append(("report", str(pages)))
    print_fields(lines)
    if promoted is not None:
        say("workers that run already must be restarted to serve it")


def _gain(attempt: Trial, at_rows: int) -> str:
    assert attempt.measurement is not None
    figures, baseline = attempt.measurement.at(at_rows), attempt.measurement.baseline
    parts = []
    if figures.ratio is not None:
        low, high = figures.ratio.low, figures.ratio.high
        parts.append(f"{figures.ratio.median:.2f} times as fast at {at_rows} rows ({low:.2f} to {high:.2f})")
    if baseline is not None:
        smaller = baseline.file_bytes / attempt.measurement.candidate.file_bytes
        parts.append(f"{smaller:.1f} times as small")
    return ", ".join(parts)
