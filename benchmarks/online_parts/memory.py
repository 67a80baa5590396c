"""Section memory: a worker's resident memory while many requests pass."""

from __future__ import annotations

import statistics
from typing import Any

from online_parts.bench import Bench, say
from online_parts.measure import wait_done, warm_up
from online_parts.processes import resident_mb

#: Readings taken over the run; the first fifth is warm-up and does not count.
READINGS = 50
WARM_UP = 0.2


def run(bench: Bench) -> dict[str, Any]:
    """Submit in pieces, never more than two of them waiting, and read the worker's memory after each."""
    side, total = bench.headrace(), bench.plan.memory_requests
    piece = max(1, total // READINGS)
    side.clear()
    with side.worker() as worker, side.client() as client:
        sent = warm_up(side, [client])
        readings = []
        while sent < total:
            client.do(op="submit", first=sent, count=piece)
            sent += piece
            done = wait_done(side, sent, sent - piece)
            readings.append((done, resident_mb(worker.pid)))
        wait_done(side, sent, sent)
    side.verify([], sent)
    kept = readings[int(len(readings) * WARM_UP) :]
    slope = statistics.linear_regression([done / 1e5 for done, _ in kept], [mb for _, mb in kept]).slope
    found = {
        "config": side.describe(),
        "requests": sent,
        "growth_mb": _level(kept[-5:]) - _level(kept[:5]),
        "slope_mb_per_100k": slope,
        "resident_mb": _level(kept[-5:]),
        "readings": readings,
    }
    say(f"  {sent:,} requests: {found['growth_mb']:+.1f} MB, {slope:+.2f} MB per 100,000")
    return found


def _level(readings: list[tuple[int, float]]) -> float:
    return statistics.median(mb for _, mb in readings)
