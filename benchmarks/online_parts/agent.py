"""Client processes: a loop that reads orders from its input and a handle for the process that gives them.

`python -m online_parts.agent celery|headrace` reads one JSON order a line and answers with one JSON line.
Both sides run the same loop; what differs is their `Load`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from online_parts.processes import end, environment

#: Every so many submitted requests one is remembered, to compare its result with a direct run of the model.
SAMPLE_EVERY = 97


class Load(Protocol):
    """One side's client."""

    def submit(self, first: int, count: int) -> list[tuple[int, str]]:
        """Submit requests `first` to `first + count - 1`; give (index, id) of a sample."""

    def ask(self, index: int) -> list[float]:
        """Submit one request, wait, and give its scores."""

    def open_loop(self, arrivals_s: list[float]) -> list[float]:
        """Submit a request at each time (seconds from now), and give the seconds from each arrival to its result."""

    def close(self) -> None:
        """Close connections."""


def make_load(side: str) -> Load:
    """Make the client of a side from the environment."""
    if side == "celery":
        from online_parts.celery_load import CeleryLoad

        return CeleryLoad()
    from online_parts.headrace_load import HeadraceLoad

    return HeadraceLoad()


def obey(load: Load, order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    began = time.perf_counter()
    match order["op"]:
        case "submit":
            sample = load.submit(order["first"], order["count"])
            return {"sample": sample, "seconds": time.perf_counter() - began}
        case "ask":
            return _ask(load, order["first"], order["count"])
        case "open_loop":
            return {"latencies_s": load.open_loop(order["arrivals_s"])}
        case other:
            raise ValueError(f"unknown order {other!r}")


def _ask(load: Load, first: int, count: int) -> dict[str, Any]:
    latencies, outputs = [], []
    for index in range(first, first + count):
        began = time.perf_counter()
        scores = load.ask(index)
        latencies.append(time.perf_counter() - began)
        outputs.append(scores)
    return {"latencies_s": latencies, "outputs": outputs}


class Agent:
    """A running client process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self.pid = process.pid

    def begin(self, **order: Any) -> None:
        """Send an order without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for the answer to the order begun last. Raises RuntimeError when the process has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client process ended; its last words:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)

    def do(self, **order: Any) -> Any:
        """Send an order and wait for its answer."""
        self.begin(**order)
        return self.answer()


@contextlib.contextmanager
def agent(side: str, env: Mapping[str, str], log: Path) -> Iterator[Agent]:
    """Start a client process; it is ready (imported, connected) when this yields."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "online_parts.agent", side],
            env=environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        client = Agent(process, log)
        client.answer()
        yield client
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def main() -> None:
    """Serve orders until the input ends."""
    # Libraries that print must not disturb the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr
    load = make_load(sys.argv[1])
    print(json.dumps({"ready": True}), file=answers, flush=True)
    try:
        for line in sys.stdin:
            print(json.dumps(obey(load, json.loads(line))), file=answers, flush=True)
    finally:
        load.close()


if __name__ == "__main__":
    main()
