"""The running marker names all that runs, and nothing else for long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from headrace.workers.execution.running import RunningMessages


class Marker:
    """Stands for the marker in the broker: keeps the last it was set to, and counts how often that was."""

    def __init__(self) -> None:
        self.marked: dict[str, list[str]] = {}
        self.writes = 0

    @property
    def stands(self) -> bool:
        return bool(self.marked)

    def set(self, running: Mapping[str, Sequence[str]]) -> None:
        self.marked = {consumer: list(tags) for consumer, tags in running.items()}
        self.writes += 1

    def clear(self) -> None:
        self.marked = {}


@pytest.fixture
def marker() -> Marker:
    return Marker()


@pytest.fixture
def running(marker: Marker) -> RunningMessages:
    return RunningMessages(marker)  # type: ignore[arg-type]


def test_one_batch_after_the_other_costs_one_write_each(marker: Marker, running: RunningMessages) -> None:
    for tags in ({"c": ["1"]}, {"c": ["2", "3"]}):
        running.begin(tags)
        assert marker.marked == tags
        running.end(tags)
        assert running.is_stale
    assert marker.writes == 2
    running.clear()
    assert (marker.marked, running.is_stale) == ({}, False)


def test_batches_in_flight_are_marked_together_until_each_has_ended(marker: Marker, running: RunningMessages) -> None:
    first, second, third = {"c": ["1"]}, {"c": ["2"]}, {"d": ["1"]}
    for tags in (first, second, third):
        running.begin(tags)
    assert marker.marked == {"c": ["1", "2"], "d": ["1"]}
    running.end(second)
    assert marker.marked == {"c": ["1"], "d": ["1"]}
    running.clear()
    assert marker.marked == {"c": ["1"], "d": ["1"]}
    assert not running.is_stale
    running.end(first)
    running.end(third)
    assert (marker.marked, running.is_stale) == ({"d": ["1"]}, True)
    running.clear()
    assert marker.marked == {}
