"""Two workers, a slow model and a fast one: does the slow one use both, and does the fast one find the free one?

The slow model's batches of up to 4 rows take 5 s; 8 requests for it are 2 batches, so two workers need 5 s. The fast
model is asked once every 50 ms, first alone, then while one worker runs the slow model and the other is free.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from typing import Any

import numpy as np
from benchmarks.resilience_parts.silence import _client, _direct
from benchmarks.resilience_parts.stage import FAST, READY_S, SLOW, SLOW_ROWS, SLOW_S, Stage

from headrace.producers import Client

#: Between two requests for the fast model.
EVERY_S = 0.05

X = np.ones((1, 1), np.float32)


def run(stage: Stage, options: Any) -> dict[str, Any]:
    """Measure the slow model's makespan ÷ ideal, and the fast one's p99 ÷ its own when idle."""
    makespans, idle, busy = [], [], []
    with stage.worker(), stage.worker(), _client(stage, _direct(stage)) as client:
        _warm_up(client)
        for number in range(options.rounds):
            idle += _ask_for(client, SLOW_S)
            handles = client.submit_many(SLOW, {"x": np.ones((SLOW_ROWS, 1), np.float32)})  # one batch, one worker
            busy += _ask_for(client, SLOW_S - 0.5)
            _results(handles)
            makespans.append(_makespan_s(client))
            print(f"  round {number + 1}: makespan {makespans[-1]:.1f} s", file=sys.stderr, flush=True)
    p99 = {name: float(np.percentile(found, 99)) for name, found in (("idle", idle), ("busy", busy))}
    return {
        "makespan_s": statistics.median(makespans),
        "makespan_ratio": statistics.median(makespans) / SLOW_S,
        "fast_idle_p99_ms": p99["idle"] * 1e3,
        "fast_busy_p99_ms": p99["busy"] * 1e3,
        "fast_p99_ratio": p99["busy"] / p99["idle"],
    }


def _warm_up(client: Client) -> None:
    """Have both workers load both models, and learn what they cost."""
    for _ in range(2):
        _results(client.submit_many(SLOW, {"x": np.ones((4 * SLOW_ROWS, 1), np.float32)}))
    for _ in range(50):
        client.submit(FAST, {"x": X}).result(timeout_s=READY_S)


def _makespan_s(client: Client) -> float:
    """Two batches, while the fast model is asked too."""
    over = threading.Event()
    asking = threading.Thread(target=lambda: [_ask_for(client, 0.5) for _ in iter(over.is_set, True)])
    began = time.monotonic()
    handles = client.submit_many(SLOW, {"x": np.ones((2 * SLOW_ROWS, 1), np.float32)})
    asking.start()
    _results(handles)
    took_s = time.monotonic() - began
    over.set()
    asking.join()
    return took_s


def _ask_for(client: Client, seconds: float) -> list[float]:
    """Ask the fast model at a steady pace; returns how long each answer took."""
    found, ends_at = [], time.monotonic() + seconds
    while time.monotonic() < ends_at:
        began = time.monotonic()
        client.submit(FAST, {"x": X}).result(timeout_s=READY_S)
        found.append(time.monotonic() - began)
        time.sleep(max(0.0, EVERY_S - found[-1]))
    return found


def _results(handles: Any) -> None:
    for handle in handles:
        handle.result(timeout_s=READY_S)
