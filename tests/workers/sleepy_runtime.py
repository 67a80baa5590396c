"""A runtime whose runs and loads take a given time; a worker finds it as an entry point on its PYTHONPATH.

y = 2·x. The model file holds the seconds of a run and of a load.
A run sleeps, so that two workers on a small machine run side by side. A load waits until the file `FILE.wait` is gone.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from headrace.contracts import ModelDirectory, ModelPackage, Tensors
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec


class SleepyModel:
    def __init__(self, run_s: float) -> None:
        self._run_s = run_s

    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        if x.any():  # not of the warm-up, whose row holds zeros
            time.sleep(self._run_s)
        return {"y": 2 * x}

    def close(self) -> None:
        pass


class SleepyRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: ModelPackage) -> SleepyModel:
        run_s, load_s = map(float, package.file.read_text().split())
        time.sleep(load_s)
        while Path(f"{package.file}.wait").exists():
            time.sleep(0.02)
        return SleepyModel(run_s)


def write_sleepy(
    root: Path, name: str, *, run_s: float, load_s: float = 0.0, version: str = "1", max_rows: int = 4, size: int = 1
) -> Path:
    """Write `root/name/version`; `x` and `y` are FP32 [rows, size]."""
    folder = root / name / version
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text(f"{run_s} {load_s}")
    write_manifest(
        folder,
        Manifest(
            name=name,
            version=version,
            runtime="sleepy",
            file="model.txt",
            sha256=sha256_of(folder / "model.txt"),
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(size,)),),
            outputs=(TensorSpec(name="y", datatype="FP32", shape=(size,)),),
            batching=BatchingAdvice(max_rows=max_rows),
        ),
    )
    assert ModelDirectory(root).get(name, version).version == version
    return folder


def ones(rows: int, size: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, size), np.float32)}
