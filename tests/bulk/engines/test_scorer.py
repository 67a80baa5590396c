"""Engines take a scorer as it is. Spark needs Java, and so an environment that is made by hand:

python -m venv .venv-spark && .venv-spark/bin/pip install pyspark pandas ".[bulk]"
HEADRACE_SPARK_PYTHON=.venv-spark/bin/python make test-engines
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.bulk.small_models import add_model_m

pytestmark = pytest.mark.engines

SPARK = os.environ.get("HEADRACE_SPARK_PYTHON", "")


def run(python: str, job: str, models: Path, output: Path) -> None:
    """Run a job in the environment of its engine."""
    script = Path(__file__).with_name(job)
    variables = {**os.environ, "PYSPARK_PYTHON": python}
    subprocess.run([python, str(script), str(models), str(output)], check=True, timeout=170, env=variables)


def check(output: Path, rows: int) -> None:
    """Compare the rows that an engine wrote with what the model is known to give."""
    found = pq.read_table(output).sort_by("id").to_pylist()
    assert len(found) == rows
    for row, result in enumerate(found):
        if row % 12 < 10:
            assert result["y"] == [2.0 * row, -2.0 * row]
            assert (result["picked"], result["headrace_error"]) == (row % 12, None)
        else:
            assert result["y"] is None
            assert result["headrace_error"]


def test_ray_data_scores_with_a_model(engines: str, tmp_path: Path) -> None:
    run(engines, "ray_job.py", add_model_m(tmp_path / "models"), tmp_path / "out")
    for way in ("tasks", "numpy"):
        check(tmp_path / "out" / way, 5000)


@pytest.mark.skipif(not SPARK, reason="HEADRACE_SPARK_PYTHON names no environment with Spark")
def test_spark_scores_with_a_model(tmp_path: Path) -> None:
    run(SPARK, "spark_job.py", add_model_m(tmp_path / "models"), tmp_path / "out")
    check(tmp_path / "out", 500)
