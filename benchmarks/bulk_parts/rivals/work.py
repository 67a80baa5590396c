"""What Ray Data and Daft run: the work of the bare loops on one table, with one session a process."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import bare
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=sorted(SCORERS))
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--actors", type=int, default=1)
    return parser.parse_args()


def digits(options: argparse.Namespace) -> Callable[[pa.Table], pa.Table]:
    """Return a scorer of tables with a column `image`."""
    model = bare.session(options.model, options.threads)

    def score(table: pa.Table) -> pa.Table:
        images = table.column("image").combine_chunks().flatten().to_numpy().reshape(-1, 1, 8, 8)
        return pa.table(bare.classified(model, table.column("id"), images, options.batch_rows))

    return score


def sentences(options: argparse.Namespace) -> Callable[[pa.Table], pa.Table]:
    """Return a scorer of tables with a column `text`; rows of similar length run together."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    model = bare.session(options.model, options.threads)
    tokenizer = bare.tokenizer(options)

    def score(table: pa.Table) -> pa.Table:
        embeddings = bare.embedded(model, tokenizer, table.column("text").to_pylist(), options.batch_rows)
        return pa.table({"id": table.column("id"), "embedding": bare.vectors(embeddings)})

    return score


SCORERS: dict[str, Callable[[argparse.Namespace], Callable[[pa.Table], pa.Table]]] = {
    "digits": digits,
    "sentences": sentences,
}


def report(options: argparse.Namespace, version: str, seconds: float, started_s: float) -> None:
    """Print what a run took, and how many rows it wrote. started_s: of imports and of the engine."""
    files = list(Path(options.output).rglob("*.parquet"))
    rows = int(np.sum([pq.read_metadata(file).num_rows for file in files]))
    print(json.dumps({
        "rows": rows, "seconds": seconds, "started_s": started_s, "version": version, "files": len(files),
    }))  # fmt: skip
