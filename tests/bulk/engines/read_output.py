"""Reads an output folder as the users of each engine do, in an environment of its own.

python read_output.py FOLDER FORMAT TO

Writes what each reader found as an Arrow file TO/READER.arrow.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq

daft, duckdb, pandas, polars = (importlib.import_module(name) for name in ("daft", "duckdb", "pandas", "polars"))

#: pyarrow takes empty cells for empty text, and no newlines in cells, unless it is told so.
CSV = pyarrow.dataset.CsvFileFormat(
    pa.csv.ParseOptions(newlines_in_values=True),
    convert_options=pa.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
)


def frame(value: Any) -> pa.Table:
    """Return a DataFrame of pandas as a table."""
    return pa.Table.from_pandas(value, preserve_index=False)


def each(folder: str, kind: str, read: Callable[[Path], Any]) -> pa.Table:
    """Return the parts of a folder, read one by one."""
    return frame(pandas.concat([read(path) for path in sorted(Path(folder).glob(f"*.{kind}"))], ignore_index=True))


def parquet(folder: str) -> dict[str, Callable[[], pa.Table]]:
    """Return the readers of Parquet."""
    parts = f"{folder}/*.parquet"
    return {
        "pyarrow": lambda: pq.read_table(folder),
        "pyarrow-dataset": lambda: pyarrow.dataset.dataset(folder).to_table(),
        "pandas": lambda: frame(pandas.read_parquet(folder)),
        "polars": lambda: polars.read_parquet(parts).to_arrow(),
        "polars-lazy": lambda: polars.scan_parquet(parts).collect().to_arrow(),
        "duckdb": lambda: duckdb.sql(f"FROM '{parts}'").to_arrow_table(),
        "daft": lambda: daft.read_parquet(parts).to_arrow(),
    }


def csv(folder: str) -> dict[str, Callable[[], pa.Table]]:
    """Return the readers of CSV."""
    parts = f"{folder}/*.csv"
    return {
        "pyarrow-dataset": lambda: pyarrow.dataset.dataset(folder, format=CSV).to_table(),
        "pandas": lambda: each(folder, "csv", pandas.read_csv),
        "polars": lambda: polars.read_csv(parts).to_arrow(),
        "polars-lazy": lambda: polars.scan_csv(parts).collect().to_arrow(),
        "duckdb": lambda: duckdb.sql(f"FROM '{parts}'").to_arrow_table(),
        "daft": lambda: daft.read_csv(parts).to_arrow(),
    }


def jsonl(folder: str) -> dict[str, Callable[[], pa.Table]]:
    """Return the readers of JSON lines."""
    parts = f"{folder}/*.jsonl"
    return {
        "pyarrow-dataset": lambda: pyarrow.dataset.dataset(folder, format="json").to_table(),
        "pandas": lambda: each(folder, "jsonl", lambda path: pandas.read_json(path, lines=True)),
        "polars": lambda: polars.read_ndjson(parts).to_arrow(),
        "polars-lazy": lambda: polars.scan_ndjson(parts).collect().to_arrow(),
        "duckdb": lambda: duckdb.sql(f"FROM '{parts}'").to_arrow_table(),
        "daft": lambda: daft.read_json(parts).to_arrow(),
    }


def main(folder: str, kind: str, to: str) -> None:
    for name, read in {"parquet": parquet, "csv": csv, "jsonl": jsonl}[kind](folder).items():
        table = read()
        with pa.ipc.new_file(Path(to) / f"{name}.arrow", table.schema) as file:
            file.write_table(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
