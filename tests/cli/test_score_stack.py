"""`headrace score` without servers: it starts a stack for the job, real worker included, and stops it again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.eventually import eventually

from headrace.contracts.settings import read_stack

Start = Callable[..., Any]

ROWS = 5000


@pytest.fixture
def scored_home(shared_home: Path, double: Path, headrace: Start) -> Path:
    """A folder with the model `double` and a file of rows, of which one has a null."""
    if not (shared_home / "models").exists():
        assert headrace("models", "add", double).code == 0
        values = np.arange(ROWS * 4, dtype=np.float32).reshape(-1, 4)
        rows = [None if number == 7 else row for number, row in enumerate(values.tolist())]
        table = pa.table({"x": pa.array(rows, pa.list_(pa.float32(), 4)), "id": np.arange(ROWS)})
        pq.write_table(table, shared_home / "rows.parquet", row_group_size=1000)
    return shared_home


def no_stack(home: Path) -> bool:
    return read_stack(home / ".headrace") is None


def test_a_stack_is_started_for_the_job_and_stopped_at_its_end(scored_home: Path, headrace_child: Start) -> None:
    process = headrace_child("score", "double", "rows.parquet", "--keep", "id")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("no stack runs here, so one is started for this job") == 1
    assert f"{ROWS - 1:,} rows scored" in err
    assert "1 bad rows, which are listed in" in err
    assert no_stack(scored_home)
    found = pq.read_table(scored_home / "rows-double.scores").to_pydict()
    assert found["id"] == [number for number in range(ROWS) if number != 7]
    assert found["y"][0] == [0.0, 2.0, 4.0, 6.0]


def test_an_interrupted_job_goes_on_with_the_same_command(scored_home: Path, headrace_child: Start) -> None:
    words = ("score", "double", "rows.parquet", "--output", "slow", "--max-rows-per-s", 1000)
    process = headrace_child(*words)
    eventually(lambda: list((scored_home / "slow").glob("part-*")), 60, "the first part")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "the same command again goes on with what is missing" in err
    assert no_stack(scored_home)
    before = {path.name: path.stat().st_mtime_ns for path in (scored_home / "slow").glob("part-*")}
    assert before
    process = headrace_child(*words[:-1], 0)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"{ROWS - 1:,} rows scored" in err
    assert pq.read_table(scored_home / "slow").num_rows == ROWS - 1
    assert {name: (scored_home / "slow" / name).stat().st_mtime_ns for name in before} == before


def test_a_missing_file_is_said_within_seconds(scored_home: Path, headrace_child: Start) -> None:
    process = headrace_child("score", "double", "missing.parquet")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "missing.parquet" in err
    assert "No such file" in err
    assert no_stack(scored_home)
