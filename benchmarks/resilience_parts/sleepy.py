"""A runtime that takes its time without using a processor: `y = 2x`, and `z` with as many numbers as its file says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from headrace.contracts.package.manifest import sha256_of

#: Its name in `model.toml`, and the entry point that provides it.
NAME = "sleepy"
ENTRY_POINT = "sleepy = benchmarks.resilience_parts.sleepy:SleepyRuntime"


class SleepyModel:
    def __init__(self, run_s: float, numbers: int) -> None:
        self._run_s, self._numbers = run_s, numbers

    def infer(self, inputs):
        x = inputs["x"]
        time.sleep(self._run_s)
        large = {"z": np.random.default_rng(0).random((len(x), self._numbers), np.float32)} if self._numbers else {}
        return {"y": 2 * x, **large}

    def close(self) -> None:
        pass


class SleepyRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package):
        wanted = json.loads(package.file.read_text())
        time.sleep(wanted["load_s"])
        return SleepyModel(wanted["run_s"], wanted["numbers"])


def write_model(root: Path, name: str, *, run_s=0.0, load_s=0.0, numbers=0, max_rows=64) -> None:
    """Write a package. run_s: of a batch, whatever its rows. numbers: FP32 in the output `z` of each row."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    file = folder / "model.json"
    file.write_text(json.dumps({"run_s": run_s, "load_s": load_s, "numbers": numbers}))
    ports = [("inputs", "x", 1), ("outputs", "y", 1), *([("outputs", "z", numbers)] if numbers else [])]
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nruntime = "{NAME}"\nfile = "{file.name}"\nsha256 = "{sha256_of(file)}"\n'
        + "".join(f'[[{kind}]]\nname = "{key}"\ndatatype = "FP32"\nshape = [{size}]\n' for kind, key, size in ports)
        + f'[batching]\nmax_rows = {max_rows}\n[store]\noutputs = "binary"\n'
    )


def write_entry_point(folder: Path) -> Path:
    """Write what makes a process with this folder on its path find the runtime."""
    metadata = folder / "sleepy_runtime-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sleepy-runtime\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[headrace.runtimes]\n{ENTRY_POINT}\n")
    return folder
