"""The report of a search as a page of its own and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError
from headrace.compression.report.markup import Content, Markup, element
from headrace.compression.report.plots import metric_by_size, metric_by_time, sensitivity_bars, time_by_rows
from headrace.compression.report.tables import (
    attempts_table,
    conditions_list,
    disagreements_table,
    unmeasured_table,
)
from headrace.compression.report.verdict import sentence
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import SMALLER

_PAGE: Final = "report.html"
_DOCUMENT: Final = "report.json"

#: Nothing is fetched from anywhere and nothing runs, whatever a name in the report contains.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(found: SearchResult, folder: Path, test: Dataset | None = None) -> Path:
    """Write `report.html`, which needs nothing beside it, and `report.json`, the same for programs.

    test: the test rows, of which those are shown that the models disagree on; they then are part of the page.
    Returns the path of the page. Raises CompressionError when it can't be written.
    """
    page = folder / _PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _DOCUMENT, msgspec.json.format(msgspec.json.encode(found), indent=2))
        _write(page, render(found, test).encode("utf-8"))
    except OSError as exc:
        raise CompressionError(f"the report can't be written to {folder}: {exc.strerror}") from exc
    return page


def _write(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all: somebody may be looking at the old one."""
    partial = file.with_suffix(f"{file.suffix}.partial")
    partial.write_bytes(content)
    partial.replace(file)


def render(found: SearchResult, test: Dataset | None = None) -> str:
    """Give the page. test: as of `write_report`."""
    title = f"{found.model}: compression"
    style = Markup(Path(__file__).with_name("report.css").read_text("utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    page = element("html", head, element("body", element("main", *_sections(found, test))), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _sections(found: SearchResult, test: Dataset | None) -> list[Content]:
    winner = "lead" if found.chosen else "lead none"
    return [
        element("h1", f"Compression of {found.model}"),
        element("p", f"What was compressed: {found.origin}", class_="origin"),
        element("p", sentence(found), class_=winner),
        _section("What was tried", attempts_table(found), _attempts_note(found)),
        _figures(found),
        _section("Where the compressed model goes wrong", *_disagreements(found, test)),
        _section("Which layers int8 hurts", *_sensitivity(found)),
        _section("What did not apply or went wrong", unmeasured_table(found)),
        _section("How it was measured", conditions_list(found)),
    ]


def _section(title: str, *content: Content) -> Content:
    """Put a heading over content, if there is any."""
    present = [piece for piece in content if piece is not None]
    return element("section", element("h2", title), *present) if present else None


def _attempts_note(found: SearchResult) -> Markup:
    return element(
        "p",
        "Speed is the time of the original over that of the compressed model: both run in turn on this machine, in "
        "processes of their own, and above 1 the compressed one is faster; below it, the time of a batch that nothing "
        "disturbed. Intervals in brackets are of 95 %. Recipes are chosen by the selection rows; those that paid were "
        "measured again, for longer, on test rows, and only what pays there too may be promoted. To pay is to be "
        f"within the bound, and {found.min_speedup:g} times as fast or {SMALLER:g} times as small and no slower. "
        f"On the front, beaten by none in metric, time and size at once: {', '.join(found.front) or 'none'}.",
        class_="note",
    )


def _figures(found: SearchResult) -> Content:
    drawn = [
        ("Metric and time", metric_by_time(found)),
        ("Metric and size", metric_by_size(found)),
        ("Time by rows", time_by_rows(found)),
    ]
    figures = [
        element("figure", element("figcaption", caption), drawing) for caption, drawing in drawn if drawing is not None
    ]
    if not figures:
        return None
    note = (
        "Whiskers are 95 % intervals. The stepped line is the front, the dashed one the bound; a triangle at the lower "
        "edge lies beyond it. Times by rows are the original's over the measured ratios."
    )
    return _section("Drawn", element("div", *figures, class_="figures"), element("p", note, class_="note"))


def _disagreements(found: SearchResult, test: Dataset | None) -> list[Content]:
    tested = [attempt for attempt in found.attempts if attempt.test is not None]
    if not tested:
        return []
    first = [attempt for attempt in tested if attempt.recipe == found.chosen] or tested[:1]
    rest = [attempt for attempt in tested if attempt not in first]
    explained = element(
        "p",
        "Test rows of which the compressed model says something else than the original, the worst first. With labels "
        "they are those that the original got right and the compressed model gets wrong.",
        class_="note",
    )
    return [
        explained,
        element("h3", first[0].recipe),
        disagreements_table(first[0], test),
        *(
            element("details", element("summary", attempt.recipe), disagreements_table(attempt, test))
            for attempt in rest
        ),
    ]


def _sensitivity(found: SearchResult) -> list[Content]:
    bars = sensitivity_bars(found)
    if bars is None:
        return [element("p", f"Not known: {found.sensitivity_note}.")] if found.sensitivity_note else []
    note = (
        "Each layer alone was put through int8, and the outputs were compared with the original's; the worst first. "
        "Those at the top are worth leaving in float, which the recipes ending in -sensitive do."
    )
    return [element("figure", bars), element("p", note, class_="note")]
