"""One server: what it does by itself, and what it does behind headrace, in rounds that alternate."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from benchmarks.bulk_parts.stage import Stage
from benchmarks.serving_parts import load
from tests.servers.connections import WAYS, Way
from tests.servers.process import ModelServer
from tests.servers.starters import STARTERS

from headrace.producers import Client

MODEL: Final = "dense"

#: Server → the runtime of its packages.
RUNTIMES: Final = {"tfserving": "tfserving", "triton": "oip", "mlserver": "oip", "kserve": "oip"}

#: Calls before the first round, so that nobody pays for connections and first batches.
WARM_UP: Final = 200


@contextmanager
def served(name: str) -> Iterator[ModelServer]:
    """Run a server."""
    with tempfile.TemporaryDirectory(prefix=f"headrace-{name}-") as folder:
        server = STARTERS[name](Path(folder))
        server.start()
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


def run(stage: Stage, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one server."""
    way = next(way for way in WAYS if (way.server, way.protocol) == (name, options.protocol))
    with served(name) as server:
        address = server.addresses[options.protocol]
        write_package(stage.models, RUNTIMES[name], address, options.batch_rows)
        connection = way.connection(address, MODEL)
        try:
            with stage.worker(), stage.client() as client:
                return _rounds(stage, way, load.straight(connection), client, options)
        finally:
            connection.close()
            shutil.rmtree(stage.models / MODEL)


def write_package(models: Path, runtime: str, address: str, max_rows: int) -> None:
    """Write the package of the model on a server."""
    folder = models / MODEL / "1"
    folder.mkdir(parents=True)
    tensor = f'datatype = "FP32"\nshape = [{load.ROW_ELEMENTS}]\n'
    (folder / "model.toml").write_text(
        f'name = "{MODEL}"\nversion = "1"\nruntime = "{runtime}"\n'
        f'[[inputs]]\nname = "x"\n{tensor}[[outputs]]\nname = "y"\n{tensor}'
        f'[batching]\nmax_rows = {max_rows}\n[store]\noutputs = "binary"\n'
        f'[server]\nendpoints = ["{address}"]\nmodel = "{MODEL}"\n'
    )


def _rounds(stage: Stage, way: Way, straight: load.Call, client: Client, options: argparse.Namespace) -> dict[str, Any]:
    through = load.through(client, MODEL)
    for call in (straight, through):
        load.latencies_s(call, WARM_UP)
    parts: dict[str, Callable[[], float]] = {
        "full_batches_rows_per_s": lambda: max(
            load.rows_per_s(straight, options.batch_rows, callers, options.seconds) for callers in options.in_flight
        ),
        "single_rows_per_s": lambda: max(
            load.rows_per_s(straight, 1, callers, options.seconds) for callers in options.callers
        ),
        "headrace_rows_per_s": lambda: load.pipelined_rows_per_s(client, MODEL, options.requests),
        "headrace_callers_rows_per_s": lambda: max(
            load.rows_per_s(through, 1, callers, options.seconds) for callers in options.callers
        ),
        "idle_p50_s": lambda: statistics.median(load.latencies_s(straight, options.idle)),
        "headrace_idle_p50_s": lambda: statistics.median(load.latencies_s(through, options.idle)),
    }
    found: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(options.rounds):
        for part, measure in parts.items():
            found[part].append(measure())
            print(f"  {way}, round {number + 1}, {part}: {found[part][-1]:.6g}", file=sys.stderr, flush=True)
    figures: dict[str, Any] = {part: statistics.median(values) for part, values in found.items()}
    figures["idle_added_p50_s"] = figures["headrace_idle_p50_s"] - figures["idle_p50_s"]
    figures["of_full_batches"] = figures["headrace_rows_per_s"] / figures["full_batches_rows_per_s"]
    figures["of_single"] = figures["headrace_rows_per_s"] / figures["single_rows_per_s"]
    return figures | {"rounds": found, "mean_batch_rows": _mean_batch_rows(stage)}


def _mean_batch_rows(stage: Stage) -> float:
    """Return how many rows the batches had in which a request ran, on average over requests of the last round."""
    with psycopg.connect(stage.servers.database_url, autocommit=True) as store:
        row = store.execute("SELECT avg(batch_rows) FROM predictions WHERE model = %s", [MODEL]).fetchone()
        store.execute("TRUNCATE predictions")
    return float(row[0] or 0) if row else 0.0
