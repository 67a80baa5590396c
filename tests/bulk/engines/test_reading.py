"""The engines that people have read the output of a job as it is; bad rows and the manifest are not in their way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from tests.bulk.engines.conftest import Scored, expected

pytestmark = pytest.mark.engines

#: What else is read besides numbers and text is the reader's choice in formats without types.
PLAIN = ("id", "name", "picked", "label", "score")


def read_by_each(python: str, folder: Path, kind: str, to: Path) -> dict[str, pa.Table]:
    """What each reader of a format finds in a folder, by its name."""
    script = Path(__file__).with_name("read_output.py")
    subprocess.run([python, str(script), str(folder), kind, str(to)], check=True, timeout=150)
    return {path.stem: pa.ipc.open_file(path).read_all() for path in to.iterdir()}


def test_parquet_is_read_with_all_rows_and_types(engines: str, scored: Scored, tmp_path: Path) -> None:
    found = read_by_each(engines, scored("parquet"), "parquet", tmp_path)
    assert set(found) == {"pyarrow", "pyarrow-dataset", "pandas", "polars", "polars-lazy", "duckdb", "daft"}
    wanted = expected()
    assert found["pyarrow"].schema.equals(wanted.schema)
    for name, table in found.items():
        assert table.column_names == wanted.column_names, name
        assert table.cast(wanted.schema).equals(wanted), name


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_is_read_with_all_rows(engines: str, scored: Scored, tmp_path: Path, kind: str) -> None:
    found = read_by_each(engines, scored(kind), kind, tmp_path)
    assert set(found) == {"pyarrow-dataset", "pandas", "polars", "polars-lazy", "duckdb", "daft"}
    columns, wanted = expected().column_names, expected().select(PLAIN)
    for name, table in found.items():
        assert table.column_names == columns, name
        read = table.select(PLAIN).cast(wanted.schema)
        if (name, kind) == ("daft", "csv"):  # for Daft, an empty cell is empty text
            assert read["name"].to_pylist() == [text or "" for text in wanted["name"].to_pylist()]
            read = read.set_column(1, wanted.field("name"), wanted["name"])
        assert read.equals(wanted), name
        vectors = table["y"].to_pylist()
        assert [json.loads(each) if isinstance(each, str) else each for each in vectors] == expected()["y"].to_pylist()
