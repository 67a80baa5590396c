"""A Ray Data job that scores with headrace: `python ray_job.py MODELS OUTPUT`, in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray  # type: ignore[import-not-found]
from numpy.typing import NDArray

import headrace.bulk

ROWS = 5000


def main(models: str, output: str) -> None:
    """Score made rows of the model `m`, in two ways that Ray Data has, and write them as Parquet."""
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    numbers = np.arange(ROWS)
    columns: dict[str, NDArray[Any]] = {
        "id": numbers,
        "x": np.stack([numbers, -numbers], 1).astype(np.float32),
        "at": numbers % 12,
    }
    table = ray.data.from_items([{name: values[row] for name, values in columns.items()} for row in range(ROWS)])
    score = headrace.bulk.scorer("m", models=models)
    table.map_batches(score, batch_format="pyarrow").write_parquet(str(Path(output) / "tasks"))
    table.map_batches(score, batch_size=512).write_parquet(str(Path(output) / "numpy"))


main(*sys.argv[1:])
