"""(g) A kill of the worker at half of the job, then the same command again: rows that ran twice, bytes read twice."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bulk_parts.contest import say
from benchmarks.bulk_parts.slope import counted, write_model
from benchmarks.bulk_parts.stage import JOB_S, Stage
from benchmarks.online_parts.processes import tree_of

from headrace.producers import Client

#: Random numbers don't compress: the bytes of the file are the bytes that must be read. A row has 1 kB.
WIDTH = 256
ROW_S, BATCH_ROWS = 0.0002, 64
GROUP_ROWS = 8_192
LOOK_S = 0.05


def random_rows(folder: Path, rows: int) -> Path:
    """Write rows of random numbers."""
    file = folder / f"random-{rows}.parquet"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    schema = pa.schema([("x", pa.list_(pa.float32(), WIDTH))])
    made = file.with_suffix(".making")
    with pq.ParquetWriter(made, schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, rows, GROUP_ROWS):
            values = random.random((min(GROUP_ROWS, rows - first), WIDTH), np.float32)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), WIDTH)
            writer.write_table(pa.table({"x": lists}, schema))
    made.rename(file)
    return file


def read_bytes(root: psutil.Process) -> int:
    """Return how many bytes a tree of processes has read by system calls so far."""
    total = 0
    for process in tree_of(root.pid):
        for line in Path(f"/proc/{process.pid}/io").read_text().splitlines():
            if line.startswith("rchar:"):
                total += int(line.split()[1])
    return total


def kill(root: psutil.Process) -> int:
    """Freeze a worker, read what it has read, and kill it."""
    tree = tree_of(root.pid)
    for process in tree:
        os.kill(process.pid, signal.SIGSTOP)
    total = read_bytes(root)
    for process in tree:
        os.kill(process.pid, signal.SIGKILL)
    return total


class Rehearsal:
    """Jobs over one file, each with a worker that has had a small job before."""

    def __init__(self, stage: Stage, options: argparse.Namespace) -> None:
        self._stage, self._options = stage, options
        self.source = random_rows(stage.data, options.resume_rows)
        self._small = random_rows(stage.data, GROUP_ROWS)
        self._counts = stage.data / "counts-resume"
        shutil.rmtree(self._counts, ignore_errors=True)
        write_model(
            stage.models, "resume", self._counts, fixed_s=0.0, row_s=ROW_S, width=WIDTH, max_rows=BATCH_ROWS
        )  # fmt: skip
        self._warm_ups = 0
        self._start_bytes = 0

    def warm_up(self, client: Client) -> None:
        self._warm_ups += 1
        self._stage.score(client, "resume", self._small, f"resume-warm-up-{self._warm_ups}")

    def undisturbed(self) -> dict[str, Any]:
        """Run the job without a kill."""
        with self._stage.worker(**self._options.worker_env) as worker, self._stage.client() as client:
            self.warm_up(client)
            rows, read = counted(self._counts), read_bytes(worker)
            # What a worker reads for itself. The second one of a killed job has no warm-up: it goes on with the job
            # as soon as it is there.
            self._start_bytes = read - self._small.stat().st_size
            ran = self._stage.score(client, "resume", self.source, "resume-whole")
            return {
                "rows_run": counted(self._counts) - rows, "bytes_read": read_bytes(worker) - read, "all_s": ran.all_s
            }  # fmt: skip

    def killed(self, share: float) -> dict[str, Any]:
        """Kill the worker when so much is done, start another and run the same command again."""
        stage, options = self._stage, self._options
        output = stage.output("resume-killed")
        with stage.worker(**options.worker_env) as worker, stage.client() as client:
            self.warm_up(client)
            rows, read = counted(self._counts), read_bytes(worker)
            client.score("resume", self.source, output)
            while counted(self._counts) - rows < share * options.resume_rows:
                time.sleep(LOOK_S)
            bytes_read = kill(worker) - read
        with stage.worker(**options.worker_env) as worker, stage.client() as client:
            began = time.monotonic()
            job = client.score("resume", self.source, output)
            job.wait(timeout_s=JOB_S)
            found = stage.ran(job.id, time.monotonic() - began)
            bytes_read += read_bytes(worker) - self._start_bytes
        shutil.rmtree(output, ignore_errors=True)
        return {
            "rows_run": counted(self._counts) - rows, "bytes_read": bytes_read, "resumed_s": found.all_s,
            "shards": found.ledger["shards"], "attempts": found.ledger["attempts"], "rows": found.rows,
        }  # fmt: skip


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a job that was killed with one that was not."""
    rehearsal = Rehearsal(stage, options)
    size = rehearsal.source.stat().st_size
    whole = rehearsal.undisturbed()
    rounds = []
    for share in options.resume_at:
        killed = rehearsal.killed(share)
        killed["at"] = share
        killed["passes"] = killed["rows_run"] / options.resume_rows
        killed["read_twice"] = (killed["bytes_read"] - whole["bytes_read"]) / size
        rounds.append(killed)
        say(f"killed at {share:.0%}: {killed['passes']:.4f} passes, {killed['read_twice']:.2%} of the bytes twice")
    return {"input_bytes": size, "undisturbed": whole, "killed": rounds}
