"""A runtime whose models give back what they get; a worker finds it as an entry point on its PYTHONPATH.

While the file MIRROR_FOLDER/hold exists, no batch of a model named `gate` begins. Each run of `gate` leaves its rows
as a line in MIRROR_FOLDER/runs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec

FOLDER = Path(os.environ.get("MIRROR_FOLDER", "."))

#: A value that `gate` refuses to run.
REFUSED = 444.0


class MirrorModel:
    def __init__(self, gated: bool) -> None:
        self._gated = gated

    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        if self._gated and x.any():  # not of the warm-up, whose rows hold zeros
            while (FOLDER / "hold").exists():
                time.sleep(0.01)
            with (FOLDER / "runs").open("a") as file:
                file.write(",".join(f"{value:g}" for value in x[:, 0]) + "\n")
            if (x == REFUSED).any():
                raise ValueError("no row with 444")
        return {"y": x}

    def close(self) -> None:
        pass


class MirrorRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: ModelPackage) -> MirrorModel:
        return MirrorModel(package.name == "gate")


def write_mirror(root: Path, name: str, datatype: str, *, version: str = "1", max_rows: int = 8) -> None:
    """Write a package of `x` and `y` of a datatype, [rows, any]."""
    folder = root / name / version
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text("")
    write_manifest(
        folder,
        Manifest(
            name=name,
            version=version,
            runtime="mirror",
            file="model.txt",
            sha256=sha256_of(folder / "model.txt"),
            inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1,)),),
            outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1,)),),
            batching=BatchingAdvice(max_rows=max_rows),
        ),
    )
