"""(e) The latency of online requests with and without a job beside them, and what rate that leaves to the job."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.bulk_parts import pictures
from benchmarks.bulk_parts.contest import say
from benchmarks.bulk_parts.stage import READY_S, Stage

from headrace.producers import Client, Handle

MODEL = "pictures"

#: Seconds after the start of a job, or of requests, that belong to neither figure.
SETTLE_S = 3.0

#: How often a job is looked at.
LOOK_S = 0.1


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Online:
    """Requests of a row each at random times; latency counts from when a request was due."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client, self._rate = client, rate
        self._rows = np.random.default_rng(1).random((64, 1, 3, pictures.SIDE, pictures.SIDE), np.float32)

    def latencies(self, seconds: float, seed: int) -> list[float]:
        """Send requests for about so long; return their latencies."""
        random = np.random.default_rng(seed)
        due = np.cumsum(random.exponential(1 / self._rate, int(self._rate * seconds))).tolist()
        waiting: list[tuple[float, Handle]] = []
        found: list[float] = []
        more = threading.Semaphore(0)
        began = time.perf_counter()

        def receive() -> None:
            for _ in due:
                more.acquire()
                at, handle = waiting.pop(0)
                handle.result(timeout_s=READY_S)
                found.append(time.perf_counter() - began - at)

        receiver = threading.Thread(target=receive)
        receiver.start()
        for number, at in enumerate(due):
            time.sleep(max(began + at - time.perf_counter(), 0.0))
            waiting.append((at, self._client.submit(MODEL, {"image": self._rows[number % len(self._rows)]})))
            more.release()
        receiver.join()
        return found


class Beside:
    """A worker, a client and a job that can run beside requests."""

    def __init__(self, stage: Stage, options: argparse.Namespace, client: Client, folder: Path, name: str) -> None:
        self._stage, self._options, self._client, self._folder, self._name = stage, options, client, folder, name
        self._jobs = 0

    @contextmanager
    def job(self, rates: list[float]) -> Iterator[None]:
        """Run a job; add its rows a second, while the body runs, to `rates`; cancel it then."""
        self._jobs += 1
        output = self._stage.output(f"beside-{self._name}-{self._jobs}")
        job = self._client.score(MODEL, self._folder, output)
        while not job.progress().rows_done:
            time.sleep(LOOK_S)
        time.sleep(SETTLE_S)
        before, began = job.progress().rows_done, time.monotonic()
        yield
        after, seconds = job.progress(), time.monotonic() - began
        if after.job.finished_at is not None:
            raise SystemExit("the job ended before the requests did: raise --beside-images or lower --online-s")
        rates.append((after.rows_done - before) / seconds)
        job.cancel()
        while job.progress().job.finished_at is None:
            time.sleep(LOOK_S)


def measure(stage: Stage, options: argparse.Namespace, policy: str, settings: dict[str, str]) -> dict[str, Any]:
    """Measure one policy: rounds of requests alone, a job alone, and both."""
    folder = pictures.files(stage.data, options.beside_images)
    found: dict[str, list[float]] = {name: [] for name in ("p50_alone", "p99_alone", "p50_with", "p99_with")}
    alone: list[float] = []
    left: list[float] = []
    with stage.worker(**{**options.worker_env, **settings}) as _, stage.client() as client:
        online = Online(client, options.online_rate)
        beside = Beside(stage, options, client, folder, policy)
        online.latencies(SETTLE_S, 0)
        for number in range(options.rounds):
            quiet = online.latencies(options.online_s, 2 * number + 1)
            with beside.job(alone):
                time.sleep(options.online_s / 2)
            with beside.job(left):
                busy = online.latencies(options.online_s, 2 * number + 2)
            for name, values in (("alone", quiet), ("with", busy)):
                found[f"p50_{name}"].append(percentile(values, 0.5))
                found[f"p99_{name}"].append(percentile(values, 0.99))
            say(
                f"{policy}, round {number + 1}: p99 {found['p99_alone'][-1] * 1e3:.1f} ms alone, "
                f"{found['p99_with'][-1] * 1e3:.1f} ms beside a job, "
                f"which has {left[-1]:,.0f} of {alone[-1]:,.0f} rows/s"
            )
    ratios = [busy / quiet for busy, quiet in zip(found["p99_with"], found["p99_alone"], strict=True)]
    return {
        "p99_ratio": statistics.median(ratios),
        "bulk_share": statistics.median(with_ / free for with_, free in zip(left, alone, strict=True)),
        "bulk_rows_per_s": statistics.median(left),
        "bulk_alone_rows_per_s": statistics.median(alone),
        **{f"{name}_s": values for name, values in found.items()},
    }


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure each policy. `--policy NAME:VARIABLE=VALUE,…` names settings of the worker; `default` is none."""
    pictures.package(stage.models, options.images_batch_rows)
    return {name: measure(stage, options, name, settings) for name, settings in options.policy.items()}
