"""One server: what it does by itself, and what it does behind headrace, in rounds that alternate."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import psycopg
from benchmarks.bulk_parts.stage import Stage
from benchmarks.serving_parts import load
from tests.servers.connections import WAYS, Way
from tests.servers.process import ModelServer
from tests.servers.starters import STARTERS

from headrace.producers import Client

#: The model whose overhead shows.
SMALL: Final = "dense"

#: Models whose time is the server's own.
HEAVY: Final = ("heavy", "deep")

#: Server → the runtime of its packages.
RUNTIMES: Final = {"tfserving": "tfserving", "triton": "oip", "mlserver": "oip", "kserve": "oip"}

#: Figure → how it is measured.
Parts: TypeAlias = dict[str, Callable[[], float]]

#: Calls before the first round, so that nobody pays for connections and first batches.
WARM_UP: Final = 200


@contextmanager
def served(name: str, *, own_core: bool = False) -> Iterator[ModelServer]:
    """Run a server. own_core: on one core that what is started meanwhile leaves alone, as on another machine."""
    cores = os.sched_getaffinity(0)
    own = {min(cores)} if own_core else set()
    with tempfile.TemporaryDirectory(prefix=f"headrace-{name}-") as folder:
        server = STARTERS[name](Path(folder))
        try:
            os.sched_setaffinity(0, own or cores)
            server.start()
            os.sched_setaffinity(0, cores - own or cores)
            server.wait_until_ready()
            yield server
        finally:
            server.stop()
            os.sched_setaffinity(0, cores)


def run(stage: Stage, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one server."""
    way = next(way for way in WAYS if (way.server, way.protocol) == (name, options.protocol))
    found: dict[str, list[float]] = {}
    with (
        served(name, own_core=options.own_core) as server,
        _staged(stage, way, server, SMALL, options) as (straight, client),
    ):
        found |= _rounds(str(way), _small_parts(straight, client, options), options.rounds)
        mean_batch_rows = _mean_batch_rows(stage)
    for model in HEAVY:
        with (
            served(name, own_core=options.own_core) as server,
            _staged(stage, way, server, model, options) as (straight, client),
        ):
            found |= _rounds(str(way), _heavy_parts(model, straight, client, options), options.rounds)
    figures: dict[str, Any] = {part: statistics.median(values) for part, values in found.items()}
    figures["idle_added_p50_s"] = figures["headrace_idle_p50_s"] - figures["idle_p50_s"]
    figures["of_full_batches"] = figures["headrace_rows_per_s"] / figures["full_batches_rows_per_s"]
    for model in HEAVY:
        bare = figures[f"{model}_full_batches_rows_per_s"]
        figures[f"{model}_of_full_batches"] = figures[f"{model}_headrace_rows_per_s"] / bare
    figures["of_single"] = figures["headrace_rows_per_s"] / figures["single_rows_per_s"]
    return figures | {"rounds": found, "mean_batch_rows": mean_batch_rows}


@contextmanager
def _staged(
    stage: Stage, way: Way, server: ModelServer, model: str, options: argparse.Namespace
) -> Iterator[tuple[load.Call, Client]]:
    """Run a worker for a model of a server; yield a call to the server itself, and a client of headrace."""
    address = server.addresses[options.protocol]
    write_package(stage.models, model, RUNTIMES[way.server], address, options.batch_rows)
    connection = way.connection(address, model)
    try:
        with stage.worker(), stage.client() as client:
            yield load.straight(connection), client
    finally:
        connection.close()
        shutil.rmtree(stage.models / model)


def write_package(models: Path, name: str, runtime: str, address: str, max_rows: int) -> None:
    """Write the package of a model on a server."""
    folder = models / name / "1"
    folder.mkdir(parents=True)
    tensor = f'datatype = "FP32"\nshape = [{load.ROW_ELEMENTS}]\n'
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nruntime = "{runtime}"\n'
        f'[[inputs]]\nname = "x"\n{tensor}[[outputs]]\nname = "y"\n{tensor}'
        f'[batching]\nmax_rows = {max_rows}\n[store]\noutputs = "binary"\n'
        f'[server]\nendpoints = ["{address}"]\nmodel = "{name}"\n'
    )


def _small_parts(straight: load.Call, client: Client, options: argparse.Namespace) -> Parts:
    through = load.through(client, SMALL)
    for call in (straight, through):
        load.latencies_s(call, WARM_UP)
    return {
        "full_batches_rows_per_s": lambda: max(
            load.rows_per_s(straight, options.batch_rows, callers, options.seconds) for callers in options.in_flight
        ),
        "single_rows_per_s": lambda: max(
            load.rows_per_s(straight, 1, callers, options.seconds) for callers in options.callers
        ),
        "headrace_rows_per_s": lambda: load.pipelined_rows_per_s(client, SMALL, options.requests),
        "headrace_callers_rows_per_s": lambda: max(
            load.rows_per_s(through, 1, callers, options.seconds) for callers in options.callers
        ),
        "idle_p50_s": lambda: statistics.median(load.latencies_s(straight, options.idle)),
        "headrace_idle_p50_s": lambda: statistics.median(load.latencies_s(through, options.idle)),
    }


def _heavy_parts(model: str, straight: load.Call, client: Client, options: argparse.Namespace) -> Parts:
    requests = options.heavy_requests
    load.pipelined_rows_per_s(client, model, max(1, requests // 10))
    return {
        f"{model}_full_batches_rows_per_s": lambda: max(
            load.rows_per_s(straight, options.batch_rows, callers, options.seconds) for callers in options.in_flight
        ),
        f"{model}_headrace_rows_per_s": lambda: load.pipelined_rows_per_s(client, model, requests),
    }


def _rounds(way: str, parts: Parts, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {part: [] for part in parts}
    for number in range(rounds):
        for part, measure in parts.items():
            found[part].append(measure())
            print(f"  {way}, round {number + 1}, {part}: {found[part][-1]:.6g}", file=sys.stderr, flush=True)
    return found


def _mean_batch_rows(stage: Stage) -> float:
    """Return how many rows the batches had in which a request ran, on average over requests of the last round."""
    with psycopg.connect(stage.servers.database_url, autocommit=True) as store:
        row = store.execute("SELECT avg(batch_rows) FROM predictions WHERE model = %s", [SMALL]).fetchone()
        store.execute("TRUNCATE predictions")
    return float(row[0] or 0) if row else 0.0
