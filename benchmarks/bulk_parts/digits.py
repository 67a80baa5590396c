"""(a) The demo's digits, many times over, Parquet to Parquet: bound by all that is not the model."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bulk_parts.contest import bare_loop, contest
from benchmarks.bulk_parts.stage import ROOT, Stage

DEMO = ROOT / "cli/headrace/cli/demo/data"
PACKAGE = DEMO / "models/digits/2"

#: Rows of a row group of the input.
GROUP_ROWS = 131_072


def rows(folder: Path, copies: int) -> Path:
    """Write the demo's 1,797 digits so many times: `id`, and `image` as a list of 64 FP32."""
    file = folder / f"digits-{copies}.parquet"
    if file.exists():
        return file
    with np.load(DEMO / "digits.npz") as found:
        images = (found["images"].astype(np.float32) / np.float32(16)).reshape(-1, 64)
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("id", pa.int64()), ("image", pa.list_(pa.float32(), 64))])
    made = file.with_suffix(".making")
    with pq.ParquetWriter(made, schema, compression="zstd") as writer:
        pending, first = [], 0
        for _ in range(copies):
            ids = pa.array(np.arange(first, first + len(images)))
            pending.append(
                pa.record_batch(
                    [ids, pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64)], schema=schema
                )
            )
            first += len(images)
            if len(pending) * len(images) >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(pending), row_group_size=GROUP_ROWS)
                pending = []
        if pending:
            writer.write_table(pa.Table.from_batches(pending), row_group_size=GROUP_ROWS)
    made.rename(file)
    return file


def package(models: Path, batch_rows: int) -> Path:
    """Write the demo's package, with batches of so many rows; return its ONNX file."""
    folder = models / "digits" / "2"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PACKAGE, folder)
    toml = folder / "model.toml"
    text = toml.read_text("utf-8")
    toml.write_text(text.replace("max_rows = 64\n", f"max_rows = {batch_rows}\n", 1), "utf-8")
    return folder / "model.onnx"


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Let headrace and the bare loop take turns."""
    source = rows(stage.data, options.digits_copies)
    model = package(stage.models, options.digits_batch_rows)
    more = ["--batch-rows", str(options.digits_batch_rows)]
    return contest(stage, options, "digits", source, bare_loop(stage, "digits", source, model, more), keep=["id"])
