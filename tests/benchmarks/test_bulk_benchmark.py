"""The benchmark of bulk jobs runs and reports what it promises; its figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.bulk import parse
from benchmarks.bulk_parts import report
from benchmarks.bulk_parts.slope import SlopeModel, counted

ROOT = Path(__file__).resolve().parents[2]

SMALL = {
    "rounds": 1,
    "digits-copies": 3,
    "images": 40,
    "images-batch-rows": 8,
    "warm-up-rows": 16,
    "scaling-rows": 3000,
    "growth-copies": 1,
    "tiny-files": 100,
}


def run_bulk(folder: Path, *options: str) -> dict[str, dict[str, object]]:
    saved = folder / "found.json"
    sizes = [f"--{name}={size}" for name, size in SMALL.items()]
    command = [sys.executable, "-m", "benchmarks.bulk", "--data", str(folder / "data"), "--save", str(saved)]
    done = subprocess.run(
        [*command, *sizes, *options], cwd=ROOT, capture_output=True, text=True, timeout=580, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(saved.read_text("utf-8"))
    assert done.stdout.strip() == report.table(found)
    return found


@pytest.mark.timeout(600)
def test_contests_score_the_same_rows_and_report_ratios(tmp_path: Path) -> None:
    found = run_bulk(tmp_path, "--only=a", "--only=c")
    for part in ("a", "c"):
        figures = found[part]["threads_1"]
        assert isinstance(figures, dict)
        assert figures["ratio"] > 0
        assert figures["ratio_all"] > 0
        assert figures["cpu_ratio"] > 0


@pytest.mark.timeout(600)
def test_a_scaling_run_reports_the_speed_up_of_each_number_of_processes(tmp_path: Path) -> None:
    found = run_bulk(tmp_path, "--only=d", "--scaling", "1")
    assert found["d"]["processes"]["1"]["speed_up"] == 1.0  # type: ignore[index]


@pytest.mark.timeout(600)
def test_growth_is_measured_for_rows_and_for_files(tmp_path: Path) -> None:
    found = run_bulk(tmp_path, "--only=m")
    assert set(found["m"]) == {"rows", "files"}
    assert all(len(figures["peaks_mib"]) == 3 for figures in found["m"].values())  # type: ignore[index]


def test_the_model_counts_its_rows_in_a_file_of_each_process(tmp_path: Path) -> None:
    import numpy as np

    models = [SlopeModel(0.0, 0.0, tmp_path), SlopeModel(0.0, 0.0, tmp_path)]
    for model, rows in zip(models, (3, 4), strict=True):
        assert model.infer({"x": np.ones((rows, 2), np.float32)})["y"].shape == (rows, 1)
        model.close()
    assert counted(tmp_path) == 7


def test_policies_are_names_with_settings_of_workers() -> None:
    options = parse(["--policy", "default", "--policy", "niced:HEADRACE_THREADS=2,HEADRACE_GRACE_S=1"])
    assert options.policy == {"default": {}, "niced": {"HEADRACE_THREADS": "2", "HEADRACE_GRACE_S": "1"}}


def test_an_empty_run_still_makes_a_table() -> None:
    assert report.table({"machine": {}}) == ""
