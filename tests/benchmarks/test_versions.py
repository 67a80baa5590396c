"""Two versions are compared in turn; the figures themselves are nobody's business here."""

from __future__ import annotations

import importlib
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def versions(parts: ModuleType) -> Iterator[ModuleType]:
    assert parts
    yield importlib.import_module("versions")
    del sys.modules["versions"]


@pytest.mark.timeout(300)
def test_a_checkout_is_compared_with_another(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for room in ROOT.glob("*/headrace"):
        (other / room.parent.name).mkdir(parents=True)
        (other / room.parent.name / "headrace").symlink_to(room)
    command: list[str | Path] = [
        sys.executable,
        ROOT / "benchmarks" / "versions.py",
        other,
        ROOT,
        "--json",
        "--rounds",
        "1",
    ]
    done = subprocess.run([*command, "--requests", "2000"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    sections = json.loads(done.stdout)["sections"]
    assert set(sections) == {"drain", "live", "idle", "load"}
    assert all(
        figures["before"] > 0 and figures["now"] > 0
        for figures in (s["p50_us"] for s in sections.values() if "p50_us" in s)
    )
    assert sections["drain"]["per_s"].keys() == {"before", "now", "ratio", "low", "high"}


def test_what_is_no_checkout_is_refused_at_once(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "versions.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no checkout of headrace" in done.stderr


def test_the_interval_holds_the_median_as_often_as_it_says(versions: ModuleType) -> None:
    source = random.Random(1)
    for count in (6, 10, 25):
        held = 0
        for _ in range(2000):
            low, high = versions.interval([source.expovariate(1.0) for _ in range(count)])
            held += low <= 0.6931471805599453 <= high
        assert held / 2000 > 0.935


@pytest.mark.parametrize(("count", "rank"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (10, 1), (20, 5), (60, 21)])
def test_the_interval_ends_at_values_that_occurred(versions: ModuleType, count: int, rank: int) -> None:
    """Ranks as in published tables of the sign test."""
    assert versions.interval([float(value) for value in range(count)]) == (rank, count - 1 - rank)


def test_a_ratio_is_the_median_of_the_rounds_not_of_the_sides(versions: ModuleType) -> None:
    """The machine was ten times slower in the second round, for both."""
    found = {"before": [{"x": 10.0}, {"x": 1.0}, {"x": 10.0}], "now": [{"x": 20.0}, {"x": 2.0}, {"x": 5.0}]}
    result = versions.compare(found)["x"]
    assert result["ratio"] == statistics.median([2.0, 2.0, 0.5])
    assert (result["before"], result["now"]) == (10.0, 5.0)


def test_each_version_begins_every_other_round(versions: ModuleType) -> None:
    sides = [versions.Version(name, None, None) for name in ("before", "now")]
    order: list[str] = []

    def run(version: object) -> dict[str, float]:
        order.append(version.name)  # type: ignore[attr-defined]
        return {"x": 1.0}

    versions.alternate(sides, 3, run)
    assert order == ["before", "now", "now", "before", "before", "now"]
