"""(d) 1, 2, 4 and 8 worker processes on a model that takes a + b·rows seconds without using a processor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bulk_parts.contest import say
from benchmarks.bulk_parts.slope import write_model
from benchmarks.bulk_parts.stage import JOB_S, Stage

from headrace.producers import Client

#: A run takes 20 ms and 1 ms a row.
FIXED_S, ROW_S, BATCH_ROWS = 0.02, 0.001, 64

#: Numbers in a row.
WIDTH = 64

#: Rows of a warm-up job, a second or so; there are two such jobs for each process at a time.
WARM_UP_ROWS = 8 * BATCH_ROWS
MOST_WARM_UPS = 20

WORKERS = "SELECT DISTINCT worker FROM headrace_job_shards WHERE worker <> ''"


def numbers(folder: Path, rows: int) -> Path:
    """Write rows of random numbers."""
    file = folder / f"numbers-{rows}.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(0).random(rows * WIDTH, np.float32)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)
        pq.write_table(pa.table({"x": lists}), file, row_group_size=16_384)
    return file


def warm_up(stage: Stage, client: Client, processes: int) -> None:
    """Run small jobs until each process has had a shard, so that all have loaded what they need."""
    warm = numbers(stage.data, WARM_UP_ROWS)
    seen: set[str] = set()
    with psycopg.connect(stage.servers.database_url, autocommit=True) as store:
        before = {name for (name,) in store.execute(WORKERS)}
        for turn in range(MOST_WARM_UPS):
            outputs = [stage.output(f"warm-up-{processes}-{turn}-{number}") for number in range(2 * processes)]
            for job in [client.score("slope", warm, output) for output in outputs]:
                job.wait(timeout_s=JOB_S)
            seen = {name for (name,) in store.execute(WORKERS)} - before
            if len(seen) >= processes:
                return
    raise SystemExit(f"only {len(seen)} of {processes} processes took part")


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure each number of processes; the ideal is that of the sleeps alone."""
    source = numbers(stage.data, options.scaling_rows)
    write_model(
        stage.models, "slope", stage.data / "counts", fixed_s=FIXED_S, row_s=ROW_S, width=WIDTH, max_rows=BATCH_ROWS
    )
    ideal = BATCH_ROWS / (FIXED_S + ROW_S * BATCH_ROWS)
    found: dict[str, Any] = {"ideal_rows_per_s": ideal, "processes": {}}
    for processes in options.scaling:
        with stage.worker(processes, **options.worker_env), stage.client() as client:
            warm_up(stage, client, processes)
            ran = stage.score(client, "slope", source, f"scaling-{processes}").figures()
        found["processes"][processes] = ran
        say(f"{processes} processes: {ran['rows_per_s']:,.0f} rows/s, ideal {processes * ideal:,.0f}")
    first = found["processes"].get(1)
    for processes, ran in found["processes"].items():
        ran["of_ideal"] = ran["rows_per_s"] / (processes * ideal)
        if first:
            ran["speed_up"] = first["shards_s"] / ran["shards_s"]
            ran["speed_up_all"] = first["all_s"] / ran["all_s"]
    return found
