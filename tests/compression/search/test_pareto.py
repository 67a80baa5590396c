"""The front, against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.compression.search.pareto import Point, dominates, front

#: Few values, so that points tie.
FIGURES = st.sampled_from([0.0, 1.0, 2.0])
POINTS = st.lists(st.builds(Point, FIGURES, FIGURES, FIGURES), max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    found = front(points)
    assert found == sorted(found)
    for at, point in enumerate(points):
        assert (at in found) == (not any(dominates(other, point) for other in points))


@given(POINTS.filter(bool))
def test_every_point_is_on_the_front_or_beaten_by_one_that_is(points: list[Point]) -> None:
    found = front(points)
    assert found
    for at, point in enumerate(points):
        assert at in found or any(dominates(points[best], point) for best in found)


def test_equals_do_not_beat_each_other() -> None:
    point = Point(0.1, 1.0, 5)
    assert not dominates(point, point)
    assert front([point, point]) == [0, 1]
    assert front([]) == []
