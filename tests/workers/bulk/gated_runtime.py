"""A runtime that waits, fails and dies as a test asks for; a worker finds it as an entry point on its PYTHONPATH.

y = 2·x, but: DEADLY kills the process, REFUSED fails, and while the file GATED_FOLDER/hold exists no batch begins but
those with a first row below the number in it. Each run leaves its rows as a line in GATED_FOLDER/runs before it begins.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from headrace.contracts import ModelPackage, Tensors

DEADLY, REFUSED = 666.0, 444.0

FOLDER = Path(os.environ.get("GATED_FOLDER", "."))

_LOOK_S = 0.01


class GatedModel:
    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        while x[0, 0] >= _held_from():
            time.sleep(_LOOK_S)
        with (FOLDER / "runs").open("a") as file:
            file.write(",".join(f"{value:g}" for value in x[:, 0]) + "\n")
        if DEADLY in x and not (FOLDER / "cured").exists():
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)
        if REFUSED in x and not (FOLDER / "cured").exists():
            raise ValueError("no row with 444")
        return {"y": 2 * x}

    def close(self) -> None:
        pass


def _held_from() -> float:
    try:
        return float((FOLDER / "hold").read_text() or "0")
    except FileNotFoundError:
        return float("inf")


class GatedRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: ModelPackage) -> GatedModel:
        return GatedModel()
