"""Charts are well-formed SVG in the colours of the page, and text in them is nothing but text."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from xml.etree import ElementTree

import matplotlib as mpl

from headrace.reporting.charts import Bar, Chart, Colour, Curve, Margins, Point, bar_chart, line_chart

HOSTILE = "</svg><script>alert(1)</script> $x^2$ \\frac \x00 & \"'"


def texts_of(svg: str) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def a_chart(name: str = "first") -> Chart:
    chart = Chart(name, (300.0, 200.0), (0.0, 10.0), (0.0, 5.0))
    chart.bottom_axis([(0.0, "0"), (10.0, "10")], f"{name} across")
    chart.left_axis([(0.0, "0"), (5.0, "5")], f"{name} up")
    chart.line([(0.0, 1.0), (99.0, 99.0)], Colour.RED, "bound")
    chart.points(
        [Point(3.0, 2.0, name, Colour.GREEN, f"{name} in detail"), Point(5.0, -9.0, "low", Colour.GREY, beyond=True)]
    )
    return chart


def test_a_chart_names_its_axes_points_and_title() -> None:
    svg = a_chart().svg()
    root = ElementTree.fromstring(svg)
    assert root.attrib["viewBox"] == "0 0 384 262"
    assert root.attrib["aria-label"] == "first"
    assert set(texts_of(svg)) == {"0", "10", "5", "first across", "first up", "first", "low"}
    assert '<g class="point"><title>first in detail</title>' in svg
    assert '<g class="point beyond">' in svg
    assert '<g class="bound">' in svg


def test_colours_are_those_of_the_page_and_nothing_is_outside_the_svg() -> None:
    svg = a_chart().svg()
    assert re.findall(r"#[0-9a-f]{6}\b(?!\w)", re.sub(r'(href|id)="#?m\w+"', "", svg)) == []
    assert "stroke: var(--red)" in svg
    assert "fill: var(--green)" in svg
    assert "<style" not in svg
    assert "font-family" not in svg
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]


def test_values_beyond_the_axes_lie_on_the_edge() -> None:
    chart = a_chart()
    assert chart.pixel(99.0, 99.0) == (chart.frame.right, chart.frame.top)
    assert chart.pixel(-1.0, -1.0) == (chart.frame.left, chart.frame.bottom)


def test_text_is_never_markup_nor_tex() -> None:
    ordinary, svg = a_chart().svg(), a_chart(HOSTILE).svg()
    tags = {item.tag for item in ElementTree.fromstring(ordinary).iter()}
    assert {item.tag for item in ElementTree.fromstring(svg).iter()} == tags
    assert any("$x^2$" in text for text in texts_of(svg))


def test_the_same_chart_is_the_same_text_and_none_is_kept() -> None:
    before = dict(mpl.rcParams)
    assert a_chart().svg() == a_chart().svg()
    assert dict(mpl.rcParams) == before
    code = "import sys; from headrace.reporting import charts; print('matplotlib.pyplot' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"


def test_charts_can_be_drawn_in_several_threads() -> None:
    wanted, found = a_chart().svg(), []
    threads = [threading.Thread(target=lambda: found.append(a_chart().svg())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [wanted] * 4


def test_curves_are_named_at_their_ends() -> None:
    curves = [Curve("one", [1.0, 2.0, 4.0], Colour.INK), Curve("two", [1.0, 2.0, 4.1], Colour.GREY)]
    svg = line_chart(curves, ["1", "8", "64"], [(1.0, "1 s"), (4.0, "4 s")], title="t", bottom="rows", left="time")
    assert texts_of(svg) == ["1", "8", "64", "rows", "1 s", "4 s", "time", "one", "two"]
    assert svg.count('class="curve"') == 2
    assert svg.count('class="point"') == 6


def test_bars_have_a_name_and_a_note() -> None:
    svg = bar_chart("bars", [Bar("a", 2.0, "two"), Bar("b", 0.0, "none")], "size")
    assert texts_of(svg) == ["0", "size", "a", "two", "b", "none"]
    assert svg.count('class="bar"') == 2


def test_a_note_at_the_lower_edge_stands_above_its_line() -> None:
    chart = Chart("t", (300.0, 200.0), (0.0, 1.0), (0.0, 1.0), Margins(left=10.0))
    chart.note(0.0, "low", Colour.RED)
    chart.note(1.0, "high", Colour.RED)
    low, high = chart.taken
    assert low.bottom >= chart.frame.bottom
    assert high.top <= chart.frame.top
