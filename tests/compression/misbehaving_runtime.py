"""A runtime that behaves as its model file says; processes that measure find it as an entry point on PYTHONPATH.

The file is JSON: `at` is a row count from which on the `misbehaviour` shows; up to there, y = 2·x after `sleep_s`.
Misbehaviours: segfault, kill, exit, raise, memory, chatter, hang (first it leaves
its pid in the file `pid` beside the model).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from headrace.contracts import ModelPackage, Tensors
from headrace.runtimes.base import OutOfMemory


class MisbehavingModel:
    def __init__(self, package: ModelPackage) -> None:
        self.folder = package.folder
        self.says: dict[str, Any] = json.loads(package.file.read_text())

    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        if len(x) >= self.says.get("at", 1):
            self.show(self.says.get("misbehaviour", ""))
        time.sleep(self.says.get("sleep_s", 0.0))
        return {"y": 2 * x}

    def show(self, misbehaviour: str) -> None:
        if misbehaviour == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if misbehaviour == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if misbehaviour == "exit":
            sys.exit("no more of this")
        if misbehaviour == "raise":
            raise ValueError("these rows are odd\nand much more could be said")
        if misbehaviour == "memory":
            raise OutOfMemory("no room for so many")
        if misbehaviour == "hang":
            (self.folder / "pid.partial").write_text(str(os.getpid()))
            (self.folder / "pid.partial").rename(self.folder / "pid")
            threading.Event().wait()
        if misbehaviour == "chatter":
            print("a library talks on standard output", flush=True)
            os.write(1, b"\xff\xfe and even below it")

    def close(self) -> None:
        pass


class MisbehavingRuntime:
    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: ModelPackage) -> MisbehavingModel:
        model = MisbehavingModel(package)
        if model.says.get("at") == 0:
            model.show(model.says["misbehaviour"])
        return model
