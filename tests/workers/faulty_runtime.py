"""A runtime that breaks in every way a test asks for; a worker finds it as an entry point on its PYTHONPATH.

y = 2·x, but: KILLER ends the process, HOLDER keeps the GIL for FAULTY_HOLD_S, BUSY fails for a while, NEVER always
fails for now, and more rows than FAULTY_MEMORY_ROWS need more memory than there is. Each run leaves its rows as a line
in FAULTY_FOLDER/runs.

With FAULTY_READERS (names of READERS) the process dies of reading a message that holds DEADLY, whose bytes are those
of a float too. Each such reading leaves the name of its thread in FAULTY_FOLDER/readings.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.contracts import ModelPackage, Tensors
from headrace.runtimes.base import OutOfMemory, TransientFailure

KILLER, BUSY, NEVER, HOLDER = 666.0, 555.0, 444.0, 333.0

DEADLY = b"dead"

#: Reader → its module and its function, whose first argument is what it reads.
READERS = {
    "envelope": ("headrace.queueing.channel.message", "read_envelope"),
    "end": ("headrace.queueing.channel.message", "read_tail"),
    "body": ("headrace.workers.intake.parse", "decode_inputs"),
}

FOLDER = Path(os.environ.get("FAULTY_FOLDER", "."))


class FaultyModel:
    def infer(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        with (FOLDER / "runs").open("a") as file:
            file.write(",".join(f"{value:g}" for value in x[:, 0]) + "\n")
        if KILLER in x and not (FOLDER / "cured").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if HOLDER in x:
            ctypes.PyDLL(None).usleep(int(1e6 * float(os.environ["FAULTY_HOLD_S"])))
        if BUSY in x and failures_left():
            raise TransientFailure("the device is busy")
        if NEVER in x:
            raise TransientFailure("the device is lost")
        if len(x) > int(os.environ.get("FAULTY_MEMORY_ROWS", "1000")):
            raise OutOfMemory(f"no memory for {len(x)} rows")
        return {"y": 2 * x}

    def close(self) -> None:
        pass


class FaultyRuntime:
    def __init__(self, device: str, threads: int) -> None:
        for name in filter(None, os.environ.get("FAULTY_READERS", "").split(",")):
            make_deadly(*READERS[name])

    def load(self, package: ModelPackage) -> FaultyModel:
        return FaultyModel()


def make_deadly(module_name: str, function_name: str) -> None:
    module = import_module(module_name)
    read = getattr(module, function_name)

    def deadly(raw: Any, *rest: Any) -> Any:
        if DEADLY in bytes(raw):
            with (FOLDER / "readings").open("a") as file:
                file.write(threading.current_thread().name + "\n")
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # the signal may be delivered a moment later
        return read(raw, *rest)

    setattr(module, function_name, deadly)


def failures_left() -> bool:
    """Take one of the failures that FAULTY_FOLDER/failures counts."""
    path = FOLDER / "failures"
    left = int(path.read_text()) if path.exists() else 0
    path.write_text(str(left - 1))
    return left > 0
