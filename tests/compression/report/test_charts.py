"""In no drawing of a report does one text lie on another, or outside: whatever was measured, however it is named."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compression.fake_search_result import a_find, a_measurement, an_attempt, an_evaluation

from headrace.compression.benchmarking.timing import Timing
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity
from headrace.compression.report.page import render
from headrace.compression.search.result import SearchResult
from headrace.compression.search.trials import Trial

#: Of a letter of 12 pixels, as browsers measure the widest common fonts; and what a line takes around its baseline.
LETTER, ABOVE, BELOW = 7.0, 9.5, 2.5

ANCHOR = re.compile(r"text-anchor: (\w+)")


@dataclass(frozen=True)
class Text:
    content: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Text) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def texts_of(drawing: str) -> tuple[list[Text], float, float]:
    """Compute the boxes of all texts, as a browser would, and the size of the drawing."""
    root = ElementTree.fromstring(drawing)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    texts = []
    for item in root.iter("{http://www.w3.org/2000/svg}text"):
        content = "".join(item.itertext())
        long = len(content) * LETTER
        anchor = ANCHOR.search(item.attrib["style"])
        before = {"start": 0.0, "middle": long / 2, "end": long}[anchor[1] if anchor else "start"]
        x, y = float(item.attrib["x"]), float(item.attrib["y"])
        if "rotate(-90 " in item.attrib["transform"]:
            texts.append(Text(content, x - ABOVE, y - long + before, x + BELOW, y + before))
        else:
            texts.append(Text(content, x - before, y - ABOVE, x - before + long, y + BELOW))
    return [text for text in texts if text.content], width, height


def drawings_of(found: SearchResult) -> list[str]:
    return re.findall(r"<svg.*?</svg>", render(found), re.DOTALL)


def check(found: SearchResult) -> None:
    drawings = drawings_of(found)
    assert len(drawings) == 4
    for drawing in drawings:
        texts, width, height = texts_of(drawing)
        assert len(texts) >= 3
        for one, other in itertools.combinations(texts, 2):
            assert not one.meets(other), (one, other)
        for text in texts:
            assert text.left >= 0, text
            assert text.top >= 0, text
            assert text.right <= width, text
            assert text.bottom <= height, text


def attempt_of(name: str, ratio: float, drop: float, file_bytes: int, scale: float) -> Trial:
    """Make an attempt. scale: of all times."""
    measured = a_measurement(ratio, file_bytes, spread=0.0)

    def timed(timing: Timing | None) -> Timing | None:
        return timing and msgspec.structs.replace(timing, seconds=scale * timing.seconds)

    rows = tuple(
        msgspec.structs.replace(each, candidate=timed(each.candidate), baseline=timed(each.baseline))
        for each in measured.rows
    )
    return an_attempt(name, ratio, drop, measurement=msgspec.structs.replace(measured, rows=rows))


def layers(count: int) -> tuple[LayerSensitivity, ...]:
    return tuple(
        LayerSensitivity(f"/a/path/to/a/layer/in/a/deep/model/node_{n}", "ConvTranspose", 10, 160.0 - 9 * n)
        for n in range(count)
    )


@pytest.mark.parametrize("count", [1, 2, 5, 12, 20])
@pytest.mark.parametrize("name", ["a", "prune-channels-50+int8-static", "distill=my_package.my_module:my_factory+" * 3])
def test_no_text_lies_on_another_for_few_and_many_recipes_of_short_and_long_names(count: int, name: str) -> None:
    attempts = [attempt_of(f"{name}{n}", 0.5 + n / 5, n / 2000, 9000 * (n + 1), 1.0) for n in range(count)]
    check(a_find(attempts, sensitivity=layers(count)))


@settings(deadline=None, max_examples=60)
@given(
    measured=st.lists(
        st.tuples(st.floats(0.001, 1000), st.floats(-0.5, 0.9), st.integers(100, 10**11)), min_size=1, max_size=20
    ),
    letters=st.integers(1, 60),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    value=st.sampled_from([1e-9, 0.003, 0.98, 12.5, 123456.7, 3.4e12]),
    original_bytes=st.integers(100, 10**11),
)
def test_no_text_lies_on_another_whatever_was_measured(
    measured: list[tuple[float, float, int]], letters: int, scale: float, value: float, original_bytes: int
) -> None:
    error = partial(an_evaluation, metric="rmse", unit="relative", higher_is_better=False)
    attempts = [
        msgspec.structs.replace(
            attempt_of(f"{n}{'x' * letters}", ratio, drop, size, scale),
            selection=error(value * (1 + drop), drop, low=value * (1 + drop) * 0.99, high=value * (1 + drop) * 1.01),
        )
        for n, (ratio, drop, size) in enumerate(measured)
    ]
    baseline = error(value, low=0.99 * value, high=1.01 * value)
    check(a_find(attempts, baseline=baseline, baseline_test=baseline, original_bytes=original_bytes))
