"""Ray Data takes a scorer as it is. Ray lives in an environment of its own, which HEADRACE_RAY_PYTHON names:

python -m venv .venv-ray && .venv-ray/bin/pip install "ray[data]" ".[bulk]"
HEADRACE_RAY_PYTHON=.venv-ray/bin/python pytest tests/bulk/test_ray.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.bulk.small_models import add_model_m

PYTHON = os.environ.get("HEADRACE_RAY_PYTHON", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="HEADRACE_RAY_PYTHON names no environment with Ray")


def test_ray_data_scores_with_a_model(tmp_path: Path) -> None:
    models = add_model_m(tmp_path / "models")
    job = Path(__file__).with_name("ray_job.py")
    subprocess.run([PYTHON, str(job), str(models), str(tmp_path / "out")], check=True, timeout=300)
    for way in ("tasks", "numpy"):
        found = pq.read_table(tmp_path / "out" / way).sort_by("id").to_pylist()
        assert len(found) == 5000
        for row, result in enumerate(found):
            if row % 12 < 10:
                assert result["y"] == [2.0 * row, -2.0 * row]
                assert (result["picked"], result["headrace_error"]) == (row % 12, None)
            else:
                assert result["y"] is None
                assert result["headrace_error"]
