"""Jobs end as if nothing had happened, whatever dies: a short run of the harness, and its own parts."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chaos.cluster import ROOT
from tests.chaos.jobs.check import judge_job
from tests.chaos.jobs.inputs import KINDS, make_input
from tests.chaos.jobs.kill_points import POINTS
from tests.chaos.jobs.run import make_faults
from tests.chaos.schedule import Kind


@pytest.mark.timeout(600)
def test_every_job_ends_with_all_rows_once_whatever_is_broken() -> None:
    command = [sys.executable, "-m", "tests.chaos.jobs.run", "--faults", "12", "--seed", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


@given(st.integers(), st.integers(1, 500), st.integers(1, 8))
def test_faults_are_a_function_of_their_seed_and_meet_every_point(seed: int, count: int, workers: int) -> None:
    faults = make_faults(seed, count, workers)
    assert faults == make_faults(seed, count, workers)
    assert len(faults) == count
    points = Counter(fault.point for fault in faults if fault.kind is Kind.KILL_AT)
    assert set(points) <= set(POINTS)
    assert max(points.values(), default=0) - min((points[point] for point in POINTS), default=0) <= 1
    assert all(0 <= fault.worker < workers for fault in faults)


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_the_input_of_a_job_is_the_same_when_its_client_starts_again(tmp_path: Path, number: int) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, again = (make_input(tmp_path / name, 3, number) for name in ("a", "b"))
    assert (first.good, first.bad, first.rows) == (again.good, again.bad, again.rows)
    assert all(
        path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        for path in (tmp_path / "a").rglob("*")
        if path.is_file()
    )


def test_a_job_without_its_mark_of_success_is_a_problem(tmp_path: Path) -> None:
    wanted = make_input(tmp_path, 1, 0)
    assert list(judge_job(wanted, tmp_path / "nowhere")) == ["it has no _SUCCESS"]
