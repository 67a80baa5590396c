"""Reads an output folder with polars and DuckDB, in an environment of their own; prints the rows as JSON.

python peers_read.py FOLDER FORMAT
"""

from __future__ import annotations

import importlib
import json
import sys

duckdb, polars = (importlib.import_module(name) for name in ("duckdb", "polars"))

READERS = {
    "parquet": (polars.read_parquet, polars.scan_parquet, "read_parquet"),
    "csv": (polars.read_csv, polars.scan_csv, "read_csv"),
    "jsonl": (polars.read_ndjson, polars.scan_ndjson, "read_json"),
}


def main(folder: str, kind: str) -> None:
    read, scan, function = READERS[kind]
    parts = f"{folder}/*.{kind}"
    table = duckdb.sql(f"SELECT * FROM {function}('{parts}')")
    found = {
        "polars": [list(row) for row in read(parts).rows()],
        "polars lazy": [list(row) for row in scan(parts).collect().rows()],
        "duckdb": [list(row) for row in table.fetchall()],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
