"""Writes the report of a search as a page and as JSON."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, MissingLibrary
from headrace.compression.search.result import SearchResult
from headrace.contracts.files import atomic_write

_PAGE: Final = "report.html"
_DOCUMENT: Final = "report.json"
_LIBRARIES: Final = ("jinja2", "matplotlib")


def write_report(found: SearchResult, folder: Path, test: Dataset | None = None) -> Path:
    """Write `report.html`, which needs nothing beside it, and `report.json`, the same for programs.

    test: the test rows, of which those are shown that the models disagree on; they then are part of the page.
    Returns the path of the page. Raises CompressionError when it can't be written, MissingLibrary without the extra
    `report`.
    """
    check_libraries()
    from headrace.compression.report.page import render

    page = folder / _PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / _DOCUMENT, msgspec.json.format(msgspec.json.encode(found), indent=2))
        atomic_write(page, render(found, test).encode("utf-8"))
    except OSError as exc:
        raise CompressionError(f"the report can't be written to {folder}: {exc.strerror}") from exc
    return page


def check_libraries() -> None:
    """Raise MissingLibrary when no report can be written, before a search that would end with one."""
    if not all(map(find_spec, _LIBRARIES)):
        raise MissingLibrary("writing a report", "report")
