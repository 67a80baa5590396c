"""The benchmark of model servers runs and reports what it promises; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.serving_parts import report
from tests.servers.environments import ROOT

#: As small as a run can be.
SMALL = (
    "--rounds",
    "1",
    "--seconds",
    "0.2",
    "--requests",
    "100",
    "--heavy-requests",
    "100",
    "--idle",
    "10",
    "--callers",
    "4",
    "--in-flight",
    "2",
)


def test_a_small_run_has_every_figure(tmp_path: Path) -> None:
    saved = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.serving", "--only", "triton", *SMALL, "--save", str(saved)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(saved.read_text("utf-8"))
    assert all(found["triton"][figure] > 0 for figure in report.LINES if figure != "idle_added_p50_s")
    assert done.stdout.strip() == report.table(found).strip()
