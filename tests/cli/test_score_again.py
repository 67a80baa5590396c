"""`headrace score` again, with a real worker: restarts, new files, another package, dry runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.contracts import Settings
from headrace.testing import BackgroundWorker

Run = Callable[..., Any]


def write(path: Path, first: int, rows: int = 100) -> None:
    values = np.arange(first * 4, (first + rows) * 4, dtype=np.float32)
    x = pa.FixedSizeListArray.from_arrays(pa.array(values), 4)
    pq.write_table(pa.table({"x": x, "id": np.arange(first, first + rows)}), path)


@pytest.fixture
def folder(
    tmp_path: Path, headrace_models: Path, double: Path, headrace: Run, headrace_settings: Settings, monkeypatch: Any
) -> Path:
    """A folder with one input file; the model `double` is there, and the commands run in the folder above."""
    assert headrace("models", "add", double).code == 0
    folder = tmp_path / "input"
    folder.mkdir()
    write(folder / "a.parquet", 0)
    monkeypatch.setenv("HEADRACE_BULK_ROOTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def score(folder: Path, headrace: Run, headrace_settings: Settings) -> Any:
    settings = headrace_settings.model_copy(update={"bulk_roots": str(folder.parent)})
    with BackgroundWorker(settings, settings.home / "worker.log"):
        yield lambda *words: headrace("score", "double", "input", "--keep", "id", *words)


def ids(folder: Path) -> list[int]:
    return sorted(pq.read_table(folder).to_pydict()["id"])


def test_new_files_restarts_and_dry_runs(score: Run, headrace: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "input-double.scores"
    first = score("--json")
    assert first.code == 0, first.err
    assert ids(out) == list(range(100))

    write(folder / "b.parquet", 100)
    found = score()
    assert found.code == 1
    assert "there is a new input" in found.line
    assert "--add-new scores what is new" in found.line
    assert ids(out) == list(range(100))
    parts = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    added = score("--add-new", "--json")
    assert added.code == 0, added.err
    assert added.json()["job"]["id"] == first.json()["job"]["id"]
    assert ids(out) == list(range(200))
    assert {path: path.stat().st_mtime_ns for path in parts} == parts

    (folder / "a.parquet").unlink()
    dry = score("--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert dry.json()["preview"][0] == {"id": 100, "y": [800.0, 802.0, 804.0, 806.0]}
    assert ids(out) == list(range(200))

    anew = score("--restart", "--json")
    assert anew.code == 0, anew.err
    assert ids(out) == list(range(100, 200))
    listed = json.loads(headrace("jobs", "list", "--json").out)
    assert [one["job"]["state"] for one in listed] == ["succeeded"] * 3
