"""The online benchmark runs and reports what it promises; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

HEADLINES = {
    "drain_ratio",
    "drain_ratio_two_workers",
    "live_ratio",
    "live_ratio_two_workers",
    "idle_latency_ratio",
    "batch_efficiency",
    "round_trips_per_request",
    "worker_memory",
}


def run_online(*options: str) -> dict[str, object]:
    command = [sys.executable, str(BENCHMARKS / "online.py"), "--tiny", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(600)
def test_one_run_gives_every_headline_figure_and_the_raw_ones() -> None:
    found = run_online()
    assert set(found) == {*HEADLINES, "raw", "machine"}
    assert all(found[name] is not None for name in HEADLINES)
    assert set(found["raw"]) == {"sweep", "drain", "live", "latency", "compute", "memory"}  # type: ignore[call-overload]
    sides = found["raw"]["drain"]["sides"]  # type: ignore[index]
    assert {name: side["max_rows"] for name, side in sides.items() if name.startswith("headrace")} == {
        "headrace": 256,
        "headrace_64": 64,
    }
    at_64 = sides["headrace_64"]
    assert found["round_trips_per_request"] == at_64["round_trips"] + at_64["submit_round_trips"]


@pytest.mark.timeout(600)
def test_one_section_can_run_alone_and_leaves_the_other_figures_empty() -> None:
    found = run_online("--only", "memory", "--memory-requests", "1000")
    assert found["worker_memory"]["requests"] >= 1000  # type: ignore[index]
    assert [name for name in HEADLINES if found[name] is not None] == ["worker_memory"]


def test_arrivals_are_the_same_for_the_same_seed_and_end_in_time(parts: ModuleType) -> None:
    times = parts.measure.arrivals(100.0, 2.0, seed=3)
    assert times == parts.measure.arrivals(100.0, 2.0, seed=3)
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 2.0


def test_a_percentile_is_a_value_that_occurred(parts: ModuleType) -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert parts.measure.percentile(values, 0.5) == 51.0
    assert parts.measure.percentile(values, 0.99) == 100.0
    assert parts.measure.percentile([7.0], 0.99) == 7.0


def test_an_empty_run_still_makes_a_table(parts: ModuleType) -> None:
    result = parts.report.compose({}, {})
    assert {name: result[name] for name in HEADLINES} == dict.fromkeys(HEADLINES)
    assert "plain Celery" in parts.report.table(result)
