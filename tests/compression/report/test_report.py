"""The report: a page that is whole by itself, says what happened, and can't be made to run what a name contains."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from tests.compression.fake_search_result import (
    a_disagreement,
    a_find,
    a_measurement,
    an_attempt,
    an_evaluation,
)

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, MissingLibrary
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity
from headrace.compression.report import report as report_module
from headrace.compression.report import write_report
from headrace.compression.report.page import render
from headrace.compression.report.rows import show_row
from headrace.compression.search.result import SearchResult

VOID = {"meta", "img", "br", "hr"}


class Outline(HTMLParser):
    """Reads a page strictly: every element that begins ends, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def outline(page: str) -> Outline:
    read = Outline()
    read.feed(page)
    read.close()
    assert read.open == []
    return read


def text_of(page: str) -> str:
    return " ".join(" ".join(outline(page).text).split())


@pytest.fixture
def found() -> SearchResult:
    return a_find(
        [
            an_attempt("graph", 1.0, 0.0),
            an_attempt(
                "int8-static",
                3.0,
                0.001,
                test=an_evaluation(0.983, 0.002),
                disagreements=(a_disagreement(0), a_disagreement(1)),
            ),
            an_attempt("broken", 4.0, 0.9),
            an_attempt("fp16", status="failed", reason="fp16 overflows", selection=None, measurement=None),
        ]
    )


@pytest.fixture
def images() -> Dataset:
    return Dataset({"image": np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)}, np.array([3, 3]))


def test_the_page_and_the_document_are_written_side_by_side(found: SearchResult, tmp_path: Path) -> None:
    page = write_report(found, tmp_path / "new")
    assert page == tmp_path / "new" / "report.html"
    document = (tmp_path / "new" / "report.json").read_bytes()
    assert msgspec.json.decode(document, type=SearchResult) == found
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]


def test_a_folder_that_cannot_be_written_is_an_error(found: SearchResult, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CompressionError, match="the report can't be written"):
        write_report(found, tmp_path / "taken")


def test_the_page_says_what_was_chosen_and_what_it_costs(found: SearchResult) -> None:
    said = text_of(render(found))
    assert "int8-static pays: 3.00 times as fast as the original at 64 rows (2.98 to 3.02), 3.0 times as small" in said
    assert "accuracy went from 0.9850 to 0.9830, a drop of 0.20 pt where 0.5 pt was allowed" in said
    assert "fp16 overflows" in said
    assert "A processor, 2 cores may be used" in said
    assert "onnxruntime 1.32.0" in said


def test_the_page_says_that_nothing_pays(found: SearchResult) -> None:
    slow = text_of(render(a_find([an_attempt("graph", 0.9)])))
    assert "No recipe was worth it and within the bound; the original stays as it is." in slow
    failed = an_attempt("fp16", status="failed", reason="no", selection=None, measurement=None)
    assert "No recipe could be measured" in text_of(render(a_find([failed], sensitivity=(), front=("original",))))
    assert "svg" not in {tag for tag, _ in outline(render(a_find([], sensitivity=()))).seen}


def test_the_page_is_whole_by_itself(found: SearchResult, images: Dataset) -> None:
    page = render(found, images)
    read = outline(page)
    assert {tag for tag, _ in read.seen} & {"script", "link", "iframe", "object", "form", "a"} == set()
    addresses = [value for _, attrs in read.seen for key, value in attrs.items() if key in {"src", "href"}]
    assert addresses
    # Shapes of a chart refer to others within the page.
    assert all((value or "").startswith(("data:image/png;base64,", "#m")) for value in addresses)
    assert re.findall(r"https?://[^\"]*", page.replace("http://www.w3.org/2000/svg", "")) == []
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


HOSTILE = "</style></title><script>alert(1)</script>\" onload='x' &amp; \x00\x1b\ud800"


def test_names_that_are_markup_stay_text(found: SearchResult, tmp_path: Path) -> None:
    attempt = an_attempt(
        HOSTILE,
        3.0,
        summary=HOSTILE,
        test=an_evaluation(0.98, 0.001),
        disagreements=(a_disagreement(label=HOSTILE, original=HOSTILE, compressed=HOSTILE),),
    )
    failed = an_attempt(HOSTILE + "2", status="failed", reason=HOSTILE, selection=None, measurement=None)
    hostile = a_find(
        [attempt, failed],
        model=HOSTILE,
        origin=HOSTILE,
        sensitivity=(LayerSensitivity(HOSTILE, HOSTILE, 1, 20.0),),
        baseline=an_evaluation(metric=HOSTILE, output=HOSTILE),
        record={"seed": HOSTILE, "versions": {HOSTILE: HOSTILE}, "rows": {"test": 1}, "data_sha256": {"test": HOSTILE}},
    )
    page = render(hostile, Dataset({"text": np.array([HOSTILE], dtype=object)}))
    page.encode("utf-8")
    read = outline(page)
    ordinary = outline(render(found)).seen
    assert {tag for tag, _ in read.seen} <= {tag for tag, _ in ordinary} | {"q", "span"}
    assert not any(key.startswith("on") for _, attrs in read.seen for key in attrs)
    assert "alert(1)" in " ".join(read.text)


def test_the_drawings_are_well_formed_and_name_every_attempt(found: SearchResult) -> None:
    drawings = re.findall(r"<svg.*?</svg>", render(found), re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    for drawing in drawings[:2]:
        for name in ("original", "int8-static", "graph", "broken"):
            assert f">{name}<" in drawing
        assert "at most 0.5 pt lost" in drawing
        assert 'class="front"' in drawing
        # A point far beyond the bound stands at the edge as a triangle, so that the others can be told apart.
        assert re.findall(r'class="point beyond"><title>([\w-]+)', drawing) == ["broken"]


def test_errors_are_drawn_with_their_bound_above() -> None:
    error = partial(an_evaluation, metric="rmse", unit="relative", higher_is_better=False)
    found = a_find(
        [an_attempt("int8-static", 2.0, selection=error(2.05, 0.025, low=1.9, high=2.2))],
        baseline=error(2.0, low=1.9, high=2.1),
        baseline_test=error(2.0, low=1.9, high=2.1),
        bound=0.05,
    )
    page = render(found)
    assert "rmse (lower is better)" in page
    assert "at most 5 % lost" in page


def test_pictures_of_the_rows_stand_beside_what_was_said_of_them(found: SearchResult, images: Dataset) -> None:
    page = render(found, images)
    assert page.count('<img src="data:image/png') == 2
    assert "1200" in text_of(page)
    assert "62.0 %" in text_of(page)
    assert "<img" not in render(found)


def test_numbers_that_moved_are_shown_instead_of_classes() -> None:
    moved = a_disagreement(
        label=None, original=1.5, compressed=2.25, original_confidence=None, compressed_confidence=None, moved=0.75
    )
    said = text_of(render(a_find([an_attempt("a", test=an_evaluation(0.98, 0.0), disagreements=(moved,))])))
    assert "apart by" in said
    assert "0.75" in said
    assert "row of the file original says" in said


@pytest.mark.parametrize(
    ("shape", "pictured"),
    [
        ((1, 8, 8), True),
        ((8, 8), True),
        ((3, 32, 48), True),
        ((32, 48, 3), True),
        ((64, 64, 1), True),
        ((1, 65, 65), False),
        ((1, 2), False),
        ((2, 8, 8), False),
        ((5,), False),
    ],
)
def test_small_images_are_drawn_and_nothing_else(shape: tuple[int, ...], pictured: bool) -> None:
    for dtype in (np.float32, np.uint8, np.int64, np.bool_):
        shown = show_row(Dataset({"x": np.ones((1, *shape), dtype)}), 0)
        assert any(each.image for each in shown) == pictured


def test_rows_that_are_no_pictures_are_shown_if_they_are_short() -> None:
    few = np.array([[1.5, 2]], np.float32)
    assert [each.text for each in show_row(Dataset({"x": few}), 0)] == ["1.5, 2"]
    assert show_row(Dataset({"x": np.zeros((1, 50), np.float32)}), 0) == []
    (text,) = show_row(Dataset({"x": np.array([b"a <b>"], dtype=object)}), 0)
    assert (text.text, text.quoted) == ("a <b>", True)
    assert [each.text for each in show_row(Dataset({"x": few, "y": np.zeros((1, 50))}), 0)] == ["1.5, 2"]
    (strange,) = show_row(Dataset({"x": np.full((1, 1, 8, 8), np.nan, np.float32)}), 0)
    assert strange.image


def test_text_of_a_row_is_quoted_and_escaped() -> None:
    tested = an_attempt("a", test=an_evaluation(0.98, 0.0), disagreements=(a_disagreement(0),))
    page = render(a_find([tested]), Dataset({"x": np.array([b"a <b>"], dtype=object)}))
    assert "<q>a &lt;b&gt;</q>" in page


def test_without_its_libraries_a_report_names_the_extra(
    found: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r'"headrace\[report\]"'):
        write_report(found, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_search_of_many_attempts_is_drawn_within_its_frame() -> None:
    attempts = [
        an_attempt(f"recipe-{n}", 0.5 + n / 5, n / 2000, measurement=a_measurement(0.5 + n / 5, 9000 * (n + 1)))
        for n in range(24)
    ]
    page = render(a_find(attempts))
    assert page.count("<use ") > 60
    for number in re.findall(r'<use [^>]*\b[xy]="(-?[\d.]+)"', page):
        assert 0 <= float(number) <= 760
