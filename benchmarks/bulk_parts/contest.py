"""Contests: headrace and a bare loop over the same input, in turns, in one run."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts.memory_peak import PeakOf
from benchmarks.bulk_parts.stage import Stage

BARE = Path(__file__).parent / "rivals/bare.py"


#: Of each round, and of all by their median.
RATIOS = ("ratio", "ratio_all", "cpu_ratio", "rows_per_s", "bare_rows_per_s")


def say(text: str) -> None:
    """Write a line of progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def bare_loop(
    stage: Stage, loop: str, source: Path, model: Path, more: Sequence[str]
) -> Callable[[int], dict[str, Any]]:
    """Return a function that runs the bare loop with some threads, in a process of its own."""

    def run(threads: int) -> dict[str, Any]:
        output = stage.data / "out" / f"bare-{loop}.parquet"
        output.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(BARE), loop, str(source), str(output), "--model", str(model)]
        began = time.monotonic()
        done = subprocess.run([*command, "--threads", str(threads), *more], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the bare loop failed: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        found["all_s"] = time.monotonic() - began
        output.unlink()
        return found

    return run


def contest(
    stage: Stage,
    options: argparse.Namespace,
    model: str,
    source: Path,
    bare: Callable[[int], dict[str, Any]],
    **score: Any,
) -> dict[str, Any]:
    """Return the figures of each number of threads; the one that goes first changes each round."""
    return {
        f"threads_{threads}": _of_threads(stage, options, threads, model, source, bare, score)
        for threads in options.threads
    }


def _of_threads(
    stage: Stage,
    options: argparse.Namespace,
    threads: int,
    model: str,
    source: Path,
    bare: Callable[[int], dict[str, Any]],
    score: dict[str, Any],
) -> dict[str, Any]:
    rounds: list[dict[str, Any]] = []
    with stage.worker(HEADRACE_THREADS=str(threads), **options.worker_env) as worker, stage.client() as client:
        # The first job of a worker loads libraries; the bare loop's are loaded before its time counts.
        stage.score(client, model, source, f"warm-up-{model}-{threads}", limit=options.warm_up_rows, **score)

        def ours() -> dict[str, Any]:
            with PeakOf(worker) as peak:
                cpu = _cpu_s(worker)
                ran = stage.score(client, model, source, f"{model}-{threads}-{len(rounds)}", **score)
                return {**ran.figures(), "cpu_s": _cpu_s(worker) - cpu, "peak_mib": peak.mib}

        for number in range(options.rounds):
            if number % 2:
                theirs, mine = bare(threads), ours()
            else:
                mine, theirs = ours(), bare(threads)
            rounds.append({"headrace": mine, "bare": theirs, **_ratios(mine, theirs)})
            say(
                f"{model}, {threads} threads, round {number + 1}: {mine['rows_per_s']:,.0f} rows/s, "
                f"bare {theirs['rows'] / theirs['seconds']:,.0f}, ratio {rounds[-1]['ratio']:.3f}, "
                f"end to end {rounds[-1]['ratio_all']:.3f}"
            )
    return {**{name: statistics.median(each[name] for each in rounds) for name in RATIOS}, "rounds": rounds}


def _ratios(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    if mine["rows"] != theirs["rows"]:
        raise SystemExit(f"headrace scored {mine['rows']} rows, the bare loop {theirs['rows']}")
    bare_rows_per_s = theirs["rows"] / theirs["seconds"]
    return {
        "rows_per_s": mine["rows_per_s"],
        "bare_rows_per_s": bare_rows_per_s,
        "ratio": mine["rows_per_s"] / bare_rows_per_s,
        "ratio_all": theirs["all_s"] / mine["all_s"],
        "cpu_ratio": theirs["cpu_s"] / mine["cpu_s"],
    }


def _cpu_s(worker: Any) -> float:
    from benchmarks.online_parts.processes import cpu_seconds

    return cpu_seconds(worker.pid)
