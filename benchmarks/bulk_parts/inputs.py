"""Inputs, the same at each run: made once, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "cli/headrace/cli/demo/data/digits.npz"

#: Rows of a row group of the inputs.
GROUP_ROWS = 131_072


def digits(folder: Path, copies: int) -> Path:
    """Write the demo's 1,797 digits so many times: `id`, and `image` as a list of 64 FP32."""
    file = folder / f"digits-{copies}.parquet"
    if file.exists():
        return file
    with np.load(DIGITS) as found:
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
