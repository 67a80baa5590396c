"""The process in which one model is measured; started by `handle.py` and of no use to anybody else.

    python -m headrace.compression.benchmarking.worker PIPE PARENT_PID

It ends when the pipe does or, on Linux, when the kernel sees its parent's thread go, even in the middle of a run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from headrace.compression.benchmarking.inputs import tiled
from headrace.compression.benchmarking.protocol import (
    Answer,
    Block,
    Command,
    Failed,
    Load,
    Loaded,
    RunBlock,
    decode_command,
    encode,
)
from headrace.contracts import Tensors, decode_tensors, read_package
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.process import end_with_parent
from headrace.runtimes.base import LoadedModel, OutOfMemory, find_runtime
from headrace.runtimes.loading import load_on


class Bench:
    """The model that is measured, and the batches it runs."""

    def __init__(self, model: LoadedModel, inputs: Tensors, manifest: Manifest, threads: int) -> None:
        """inputs: real rows, repeated where a batch needs more. manifest: of the model's package."""
        self._model = model
        self._inputs = inputs
        self._specs = manifest.inputs
        self._queue = CoreQueue(threads)

    def run(self, rows: int, seconds: float) -> list[tuple[float, float]]:
        """Return the seconds of each run of `rows` rows: by the clock, and its own.

        The first one finds the caches as another model left them, and its threads asleep: it counts only if there
        is no other.
        """
        batch = tiled(self._inputs, rows, self._specs)
        until = time.perf_counter() + seconds
        first = self._once(batch)
        taken = []
        while time.perf_counter() < until:
            taken.append(self._once(batch))
        return taken or [first]

    def _once(self, batch: Tensors) -> tuple[float, float]:
        waited = self._queue.waited_s()
        started = time.perf_counter()
        self._model.infer(batch)
        seconds = time.perf_counter() - started
        own = seconds - (self._queue.waited_s() - waited)
        # The core may have been lost between the readings of the queue and those of the clock.
        return seconds, own if own > 0 else seconds


class CoreQueue:
    """The time for which this thread was runnable but had no core, as Linux counts it, to 1 µs.

    Only of a model with one thread is that time lost: with several, the others get on with the work meanwhile.
    """

    def __init__(self, threads: int) -> None:
        """Keep the file open: it tells the present state each time it is read. threads: of the model."""
        self._file: int | None = None
        if threads != 1:
            return
        try:
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY)
            self.waited_s()
        except (OSError, ValueError, IndexError):
            self._file = None

    def waited_s(self) -> float:
        """Return the seconds waited since this thread began; 0 with several threads, or on other systems than Linux."""
        return 0.0 if self._file is None else int(os.pread(self._file, 64, 0).split()[1]) / 1e9


class Session:
    """The session of one parent: runs its commands one after the other."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._bench: Bench | None = None

    def answer(self, command: Command) -> Answer:
        """Carry out a command; whatever goes wrong becomes an answer too."""
        try:
            return self._load(command) if isinstance(command, Load) else self._run(command)
        except Exception as exc:  # noqa: BLE001  (a runtime may raise anything; the parent reports it)
            return Failed(first_line(exc), memory=isinstance(exc, OutOfMemory | MemoryError))

    def _load(self, command: Load) -> Loaded:
        package = read_package(Path(command.folder))
        inputs = decode_tensors(Path(command.inputs).read_bytes())
        idle = resident_bytes()
        runtime = find_runtime(package.manifest.runtime, command.device, command.threads)
        library = resident_bytes() - idle
        started = time.perf_counter()
        model = load_on(runtime, package)
        seconds = time.perf_counter() - started
        self._bench = Bench(model, inputs, package.manifest, command.threads)
        return Loaded(seconds, idle, max(library, 0))

    def _run(self, command: RunBlock) -> Block:
        if self._bench is None:
            raise RuntimeError("nothing is loaded")
        seconds, own_seconds = zip(*self._bench.run(command.rows, command.seconds), strict=True)
        return Block(seconds, own_seconds, most_resident_bytes())


def resident_bytes() -> int:
    """Return the resident memory of this process; its peak where the system reports no other."""
    return _status("VmRSS") or most_resident_bytes()


def most_resident_bytes() -> int:
    """Return the peak resident memory of this process.

    Not by getrusage where there is another way: it counts what the parent held when it started this process.
    """
    if high := _status("VmHWM"):
        return high
    import resource

    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return high if sys.platform == "darwin" else high * 1024


def _status(key: str) -> int:
    """Read one of the sizes that Linux tells of a process; 0 where it doesn't."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def _commands(pipe: Connection) -> Iterator[Command]:
    """Yield the parent's commands until it closes its end."""
    while True:
        try:
            yield decode_command(pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            return


def main(pipe_number: int, parent_pid: int) -> None:
    """Serve the parent until it closes the pipe."""
    if not end_with_parent(parent_pid, signal.SIGKILL):
        sys.exit("the process that started this one is gone")
    session = Session()
    with Connection(pipe_number) as pipe:
        for command in _commands(pipe):
            pipe.send_bytes(encode(session.answer(command)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
