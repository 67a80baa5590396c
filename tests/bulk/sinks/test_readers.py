"""The tools that people have read the output folder as it is; bad rows and the manifest are not in their way."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from tests.bulk.sinks.finished_job import FinishedJob

from headrace.bulk.sinks.base import PartFormat

pd = pytest.importorskip("pandas")

#: The environment of polars and DuckDB: a third and a fourth copy of what pyarrow does.
PEERS = Path(os.environ.get("HEADRACE_PEERS") or Path(__file__).parents[3] / ".venv-peers", "bin", "python")

needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="polars and DuckDB are not installed (make test-peers)")

SCHEMA = pa.schema(
    [("name", pa.string()), ("label", pa.int32()), ("score", pa.float32()), ("vector", pa.list_(pa.float32(), 2))]
)

ROWS = [
    {"name": name, "label": at, "score": at / 4, "vector": [at / 2, -at / 8]}
    for at, name in enumerate(["a", None, 'ü\n,"', "d", "e", "f", "g"])
]


@pytest.fixture
def ended(job: FinishedJob, kind: PartFormat) -> FinishedJob:
    """A job of three parts and some bad rows that has ended."""
    job.kind = kind
    for file_no, row_start, rows in ((0, 0, ROWS[:4]), (0, 6, ROWS[4:6]), (1, 0, ROWS[6:])):
        job.score(file_no, row_start, pa.RecordBatch.from_pylist(rows, SCHEMA), bad=2)
    job.finalize()
    assert "_errors/part-000000.parquet" in job.names()
    return job


@pytest.mark.parametrize("kind", ["parquet"])
def test_pyarrow_and_pandas_read_the_folder(ended: FinishedJob) -> None:
    table = pq.read_table(ended.folder)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == ROWS
    assert pyarrow.dataset.dataset(ended.folder).to_table().to_pylist() == ROWS
    frame = pd.read_parquet(ended.folder)
    assert frame["label"].tolist() == [row["label"] for row in ROWS]
    assert frame["vector"].iloc[1].tolist() == ROWS[1]["vector"]


@pytest.mark.parametrize("kind", ["csv"])
def test_pyarrow_and_pandas_read_csv(ended: FinishedJob) -> None:
    options = pyarrow.dataset.CsvFileFormat(pyarrow.csv.ParseOptions(newlines_in_values=True))
    table = pyarrow.dataset.dataset(ended.folder, format=options).to_table()
    assert table.column("score").to_pylist() == [row["score"] for row in ROWS]
    frames = [pd.read_csv(path) for path in sorted(Path(ended.folder).glob("*.csv"))]
    frame = pd.concat(frames, ignore_index=True)
    assert frame["score"].tolist() == [row["score"] for row in ROWS]
    assert [json.loads(cell) for cell in frame["vector"]] == [row["vector"] for row in ROWS]


@pytest.mark.parametrize("kind", ["jsonl"])
def test_pyarrow_and_pandas_read_json_lines(ended: FinishedJob) -> None:
    table = pyarrow.dataset.dataset(ended.folder, format="json").to_table()
    assert table.to_pylist() == ROWS
    frames = [pd.read_json(path, lines=True) for path in sorted(Path(ended.folder).glob("*.jsonl"))]
    assert pd.concat(frames)["score"].tolist() == [row["score"] for row in ROWS]


@needs_peers
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_polars_and_duckdb_read_the_parts(ended: FinishedJob, kind: PartFormat) -> None:
    script = Path(__file__).with_name("peers_read.py")
    done = subprocess.run([PEERS, script, ended.folder, kind], capture_output=True, text=True, check=True)
    found: dict[str, list[list[Any]]] = json.loads(done.stdout)
    assert set(found) == {"polars", "polars lazy", "duckdb"}
    for rows in found.values():
        if kind == "csv":
            rows = [[*row[:3], json.loads(row[3])] for row in rows]
        assert rows == [list(row.values()) for row in ROWS]
