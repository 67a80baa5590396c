"""(f) Ray Data and Daft over the inputs of (a) and (b), with the same session, threads and batches, in turns."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts import digits, sentences
from benchmarks.bulk_parts.contest import say
from benchmarks.bulk_parts.stage import Stage
from benchmarks.online_parts.processes import tree_of

PARTS = Path(__file__).parent / "rivals"
ENGINES = {"ray": "ray_data.py", "daft": "daft_frames.py"}

#: Inputs that they are compared on, and the models of these.
LOOPS = {"digits": "digits", "sentences": "minilm"}

#: A run that has not ended by then is given up.
LONGEST_S = 1800.0


def python_of(options: argparse.Namespace) -> Path:
    """Return the interpreter of the rivals' environment. Raises SystemExit saying how to make it."""
    python: Path = options.rivals / "bin/python"
    if not python.exists():
        raise SystemExit(f"{python} is not there; run `make .venv-engines/.installed`, or leave out part f")
    return python


class Engine:
    """A rival. work: arguments of its script besides input and output."""

    def __init__(self, name: str, stage: Stage, options: argparse.Namespace, work: list[str]) -> None:
        self.name, self._stage, self._work = name, stage, work
        self._python = python_of(options)

    def run(self, loop: str, source: Path, threads: int) -> dict[str, Any]:
        """Run it once, in a process of its own."""
        output = self._stage.output(f"{self.name}-{loop}")
        output.parent.mkdir(parents=True, exist_ok=True)
        command = [str(self._python), str(PARTS / ENGINES[self.name]), loop, str(source), str(output), *self._work]
        environment = {**os.environ, "PYTHONPATH": str(PARTS), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            written, errors = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            for each in reversed(tree_of(process.pid)):
                each.kill()
            return {"failed": f"no end after {LONGEST_S:.0f} s"}
        all_s = time.monotonic() - began
        shutil.rmtree(output, ignore_errors=True)
        if process.returncode:
            return {"failed": errors.strip()[-500:]}
        found: dict[str, Any] = json.loads(written.strip().splitlines()[-1])
        return {**found, "all_s": all_s, "rows_per_s": found["rows"] / found["seconds"]}


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Let headrace and the engines take turns on both inputs, with one thread of the model."""
    files = {"digits": digits.rows(stage.data, options.digits_copies)}
    models = {"digits": digits.package(stage.models, options.digits_batch_rows)}
    files["sentences"], models["sentences"] = sentences.prepare(stage, options)
    rows = {"digits": options.digits_batch_rows, "sentences": options.sentences_batch_rows}
    found = {}
    for loop in options.rival_loops:
        work = ["--model", str(models[loop]), "--batch-rows", str(rows[loop]), "--tokens", str(sentences.TOKENS)]
        engines = [Engine(name, stage, options, work) for name in options.engines]
        found[loop] = {
            f"threads_{threads}": _turns(stage, options, loop, files[loop], engines, threads)
            for threads in options.threads
        }
    return found


def _turns(
    stage: Stage, options: argparse.Namespace, loop: str, source: Path, engines: list[Engine], threads: int
) -> dict[str, Any]:
    name = LOOPS[loop]
    rounds: list[dict[str, Any]] = []
    with stage.worker(HEADRACE_THREADS=str(threads), **options.worker_env), stage.client() as client:
        stage.score(client, name, source, f"warm-up-{loop}-{threads}", limit=options.warm_up_rows, keep=["id"])
        for number in range(options.rounds):
            turns = [None, *engines]
            found = {}
            for engine in turns[number % len(turns) :] + turns[: number % len(turns)]:
                if engine is None:
                    ran = stage.score(client, name, source, f"rival-{loop}-{threads}-{number}", keep=["id"])
                    found["headrace"] = ran.figures()
                else:
                    found[engine.name] = engine.run(loop, source, threads)
            rounds.append(found)
            say(f"{loop}, {threads} threads, round {number + 1}: " + ", ".join(
                f"{side} {ran['rows_per_s']:,.0f} rows/s" if "rows_per_s" in ran else f"{side} failed: {ran['failed']}"
                for side, ran in found.items()
            ))  # fmt: skip
    return {**{engine.name: _ratios(rounds, engine.name) for engine in engines}, "rounds": rounds}


def _ratios(rounds: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    ran = [each for each in rounds if "failed" not in each[name]]
    if not ran:
        return None
    return {
        "ratio": statistics.median(each["headrace"]["rows_per_s"] / each[name]["rows_per_s"] for each in ran),
        "ratio_all": statistics.median(each[name]["all_s"] / each["headrace"]["all_s"] for each in ran),
    }
