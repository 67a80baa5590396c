"""Section latency: from submit to result, one at a time and at half load."""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

from online_parts.agent import Agent
from online_parts.bench import Bench, say
from online_parts.celery_side import CeleryConfig
from online_parts.measure import arrivals, live, percentile, ready
from online_parts.side import Side

#: How often each pool of the rival is tried, in turn: one block alone once chose a pool that was slower by half.
IDLE_TRIES = 3


def run(bench: Bench) -> dict[str, Any]:
    """Measure idle latency in alternating blocks, then open-loop arrivals in alternating rounds."""
    sides: dict[str, Side] = {"celery": bench.celery(_best_idle(bench)), "headrace": bench.headrace()}
    rates = bench.live_rates or _live_rates(bench, sides)
    with contextlib.ExitStack() as stack:
        clients = {name: ready(stack, side) for name, side in sides.items()}
        idle = _idle(bench, clients)
        half = _half_load(bench, clients, rates)
    return {
        "ratio": idle["headrace"]["p50_s"] / idle["celery"]["p50_s"],
        "config": {name: side.describe() for name, side in sides.items()},
        "idle": idle,
        "half_load": half,
    }


def _best_idle(bench: Bench) -> CeleryConfig:
    """Find the pool with the lowest p50 under one worker command; each counts by its best try."""
    tries: dict[CeleryConfig, list[float]] = {config: [] for config in bench.rivals}
    for _ in range(IDLE_TRIES if len(tries) > 1 else 1):
        for config, found in tries.items():
            with contextlib.ExitStack() as stack:
                found.append(percentile(_ask(ready(stack, bench.celery(config)), bench.plan.latency_block), 0.5))
    for config, found in tries.items():
        say(f"  idle, plain Celery, {config}: p50 " + ", ".join(f"{p50 * 1e3:.2f}" for p50 in found) + " ms")
    return min(tries, key=lambda config: min(tries[config]))


def _live_rates(bench: Bench, sides: dict[str, Side]) -> dict[str, float]:
    """Measure roughly what half load means, when the live section did not."""
    best = {
        config: live(bench.servers, bench.celery(config), bench.plan.sweep_requests, 1).per_s
        for config in bench.rivals[: bench.plan.kinds]
    }
    ours = live(bench.servers, sides["headrace"], bench.plan.live_requests, 1)
    return {
        "celery": max(best.values()),
        "headrace": ours.per_s,
    }


def _idle(bench: Bench, clients: dict[str, Agent]) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(bench.plan.latency_blocks):
        for name, client in clients.items():
            found[name] += _ask(client, bench.plan.latency_block)
    idle = {name: _percentiles(latencies) for name, latencies in found.items()}
    say("  idle: " + ", ".join(f"{name} {_in_words(percentiles)}" for name, percentiles in idle.items()))
    return idle


def _ask(client: Agent, count: int) -> list[float]:
    latencies: list[float] = client.do(op="ask", first=0, count=count)["latencies_s"]
    return latencies


def _half_load(bench: Bench, clients: dict[str, Agent], rates: dict[str, float]) -> dict[str, dict[str, float]]:
    """Both sides at half of what the slower can do, and headrace at half of what it can do."""
    slow, own = min(rates.values()) / 2, rates["headrace"] / 2
    loads = {
        "celery": ("celery", slow),
        "headrace": ("headrace", slow),
        "headrace_half_of_its_own": ("headrace", own),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
    for seed in range(bench.plan.rounds):
        for name, (side, rate_per_s) in loads.items():
            found[name].append(_open_loop(clients[side], rate_per_s, bench.plan.half_load_s, seed))
    half = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}
    for name, percentiles in half.items():
        say(f"  {percentiles['arrivals_per_s']:,.0f}/s, {name}: {_in_words(percentiles)}")
    return half


def _open_loop(client: Agent, rate_per_s: float, seconds: float, seed: int) -> dict[str, float]:
    times = arrivals(rate_per_s, seconds, seed)
    latencies = client.do(op="open_loop", arrivals_s=times)["latencies_s"]
    return {"arrivals_per_s": rate_per_s, "unanswered": len(times) - len(latencies), **_percentiles(latencies)}


def _percentiles(latencies: list[float]) -> dict[str, float]:
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return {"p50_s": p50, "p99_s": p99, "count": len(latencies)}


def _in_words(found: dict[str, float]) -> str:
    return f"p50 {found['p50_s'] * 1e3:.2f} ms, p99 {found['p99_s'] * 1e3:.2f} ms"
