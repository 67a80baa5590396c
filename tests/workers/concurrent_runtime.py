"""A runtime whose models take several batches at once; a worker finds it as an entry point on its PYTHONPATH.

y = 2·x. A run of HELD waits until the file `go` is in CONCURRENT_FOLDER, one of MEETING for two others. REFUSED fails
for good, BUSY fails once. Each run leaves a line in `runs`: how many ran when it began.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from headrace.contracts import ModelPackage, Tensors
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.base import TransientFailure

IN_FLIGHT = 3

MEETING, REFUSED, BUSY, HELD = 100.0, 200.0, 300.0, 400.0

#: A run that waits for longer fails, so that no test hangs.
WAIT_S = 30.0


class ConcurrentModel:
    max_in_flight = IN_FLIGHT

    def __init__(self) -> None:
        self._folder = Path(os.environ["CONCURRENT_FOLDER"])
        self._lock = threading.Lock()
        self._meeting = threading.Barrier(IN_FLIGHT)
        self._running = 0

    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        if not x.any():  # the warm-up, whose row holds zeros
            return {"y": x}
        with self._lock:
            self._running += 1
            with (self._folder / "runs").open("a") as file:
                file.write(f"{self._running}\n")
        try:
            self._wait(x[0, 0])
        finally:
            with self._lock:
                self._running -= 1
        return {"y": 2 * x}

    def _wait(self, value: float) -> None:
        if value == MEETING:
            self._meeting.wait(WAIT_S)
        if value == REFUSED:
            raise ValueError("refused")
        if value == BUSY and not (self._folder / "was-busy").exists():
            (self._folder / "was-busy").touch()
            raise TransientFailure("busy")
        if value == HELD:
            deadline = time.monotonic() + WAIT_S
            while not (self._folder / "go").exists():
                if time.monotonic() > deadline:
                    raise TimeoutError
                time.sleep(0.02)

    def close(self) -> None:
        pass


class ConcurrentRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: ModelPackage) -> ConcurrentModel:
        return ConcurrentModel()


def write_package(root: Path) -> None:
    """Write the model `remote` into the model directory."""
    folder = root / "remote" / "1"
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text("anything")
    write_manifest(
        folder,
        Manifest(
            name="remote",
            version="1",
            runtime="concurrent",
            file="model.txt",
            sha256=sha256_of(folder / "model.txt"),
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(1,)),),
            outputs=(TensorSpec(name="y", datatype="FP32", shape=(1,)),),
            batching=BatchingAdvice(max_rows=1),
        ),
    )
