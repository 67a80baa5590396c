"""Servers, workers and jobs of headrace, and what the ledger says of these."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from benchmarks.bulk_parts.slope import write_entry_point
from benchmarks.online_parts.processes import end
from benchmarks.online_parts.servers import HEADRACE_BROKER, Servers, started

from headrace.producers import Client
from headrace.results_store import migrate

ROOT = Path(__file__).resolve().parents[2]

#: A worker that isn't ready by then never will be, and a job that has not ended by then has stopped.
READY_S = 60.0
JOB_S = 3600.0

#: How the ledger is read: what shards say of themselves, summed.
SUMS = """
SELECT extract(epoch FROM min(claimed_at)), extract(epoch FROM max(finished_at)), count(*), sum(attempt),
       sum(rows_ok), sum(rows_bad), sum(part_bytes), sum(bytes_read), sum(wall_s), sum(read_s), sum(decode_s),
       sum(infer_s), sum(write_s)
FROM headrace_job_shards WHERE job_id = %s
"""
NAMES = (
    "claimed_at", "finished_at", "shards", "attempts", "rows", "bad", "part_bytes", "bytes_read", "wall_s", "read_s",
    "decode_s", "infer_s", "write_s",
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """A job that has ended. shards_s: from the first claim to the last completion. all_s: from the call to the end."""

    all_s: float
    shards_s: float
    rows: int
    ledger: dict[str, float]

    def figures(self) -> dict[str, Any]:
        """Return what is kept of it."""
        kept = {name: value for name, value in self.ledger.items() if not name.endswith("_at")}
        return {
            "rows": self.rows,
            "all_s": self.all_s,
            "shards_s": self.shards_s,
            "rows_per_s": self.rows / self.shards_s,
            "all_rows_per_s": self.rows / self.all_s,
            **kept,
        }


class Stage:
    """Everything that runs. folder: of the servers; data: of inputs, models and outputs."""

    def __init__(self, servers: Servers, data: Path) -> None:
        self.servers, self.folder, self.data = servers, servers.folder, data
        self.models = data / "models"
        self._path = write_entry_point(self.folder / "entry-points")
        self.models.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """What the processes wrote."""
        return self.folder / "processes.log"

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process of headrace."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "CELERY_"))}
        path = [str(self._path), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT)]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(path),
            "HEADRACE_MODELS": str(self.models),
            "HEADRACE_HOME": str(self.folder / "home"),
            "HEADRACE_BULK_ROOTS": str(self.data),
            "HEADRACE_BULK_SCRATCH": str(self.data / "scratch"),
            "HEADRACE_BROKER_URL": self.servers.valkey_database(HEADRACE_BROKER),
            "HEADRACE_DATABASE_URL": self.servers.database_url,
            **more,
        }

    @contextlib.contextmanager
    def worker(self, processes: int = 1, **more: str) -> Iterator[psutil.Process]:
        """Run `headrace worker`; kill it at the end. more: settings, as variables of its environment."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", "worker", "--processes", str(processes)],
                env=self.environment(more),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            end(process)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Return a client of the same servers."""
        before = dict(os.environ)
        os.environ.update(self.environment({}))
        try:
            with Client() as client:
                yield client
        finally:
            os.environ.clear()
            os.environ.update(before)

    def output(self, name: str) -> Path:
        """Return a folder for an output, which is not there."""
        folder = self.data / "out" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def score(self, client: Client, model: str, source: Path, name: str, **options: Any) -> Ran:
        """Run a job to its end."""
        output = self.output(name)
        began = time.monotonic()
        job = client.score(model, source, output, **options)
        job.wait(timeout_s=JOB_S)
        all_s = time.monotonic() - began
        ran = self.ran(job.id, all_s)
        if ran.ledger["bad"]:
            raise SystemExit(f"{ran.ledger['bad']:.0f} rows are bad, such as {next(iter(job.errors(1)))}")
        shutil.rmtree(output, ignore_errors=True)
        return ran

    def ran(self, job_id: str, all_s: float) -> Ran:
        """Return what the ledger says of a job."""
        found = self.sums(job_id)
        return Ran(all_s, found["finished_at"] - found["claimed_at"], int(found["rows"]), found)

    def sums(self, job_id: str) -> dict[str, float]:
        """Return the sums over a job's shards."""
        with psycopg.connect(self.servers.database_url, autocommit=True) as store:
            row = store.execute(SUMS, [job_id]).fetchone()
        return {name: float(value or 0) for name, value in zip(NAMES, row or [0] * len(NAMES), strict=True)}


@contextlib.contextmanager
def staged(data: Path) -> Iterator[Stage]:
    """Start the servers."""
    with started() as servers:
        migrate(servers.database_url)
        yield Stage(servers, data)
