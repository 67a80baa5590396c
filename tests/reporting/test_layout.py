"""Positions and texts of charts, without drawing any."""

from __future__ import annotations

import pytest

from headrace.reporting.layout import Box, around, free_place, log_ticks, round_ticks, spread, tick_text
from headrace.reporting.text import cleaned, shortened, width_of


def test_ticks_are_round() -> None:
    assert round_ticks(0.0, 1.7) == pytest.approx([0, 0.5, 1.0, 1.5])
    assert round_ticks(1, 1) == [1]
    assert log_ticks(1e-5, 1e-2) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert len(log_ticks(2e-3, 2.2e-3)) <= 2
    assert len(log_ticks(2e-3, 9e-3)) > 2


def test_ticks_have_the_decimals_that_distinguish_them() -> None:
    assert [tick_text(tick, 0.97, 0.99) for tick in round_ticks(0.97, 0.99)] == [
        "0.970",
        "0.975",
        "0.980",
        "0.985",
        "0.990",
    ]
    assert tick_text(3.4e12, 3.39e12, 3.41e12) == "3.4e+12"
    assert tick_text(1e-19, -1e-9, 1e-9) == "0"


def test_labels_do_not_lie_on_each_other() -> None:
    assert spread([10, 10, 10], 5, 0, 100) == [10, 15, 20]
    assert spread([99, 98, 97], 5, 0, 100) == [100, 95, 90]
    assert spread([], 5, 0, 1) == []
    frame, taken = Box(0, 0, 600, 300), [around(300, 200, 6)]
    for n in range(9):
        place = free_place(300, 200, f"recipe-{n}", taken, frame)
        if place is not None:
            assert not any(place.overlaps(other) for other in taken)
            taken.append(place)
    assert len(taken) > 5
    assert free_place(300, 200, "x" * 100, taken, frame) is None


def test_names_of_wide_letters_get_twice_the_room() -> None:
    assert width_of("模型") > 1.5 * width_of("ab")
    assert width_of(shortened("模" * 100)) <= width_of("x" * 40)
    assert shortened("a/long/path/" * 10 + "node").endswith("node")
    assert shortened("short") == "short"


def test_characters_that_no_page_can_hold_are_replaced() -> None:
    assert cleaned("a\x00b\ud800c\ufffe") == "a\ufffdb\ufffdc\ufffd"
    assert cleaned("tab\tline\n") == "tab\tline\n"
    assert cleaned(7) == 7
