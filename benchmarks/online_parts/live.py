"""Section live: producers and workers at once."""

from __future__ import annotations

from typing import Any

from online_parts.bench import Bench, fastest, ratios, say, summary
from online_parts.measure import Rate, live
from online_parts.side import Side


def run(bench: Bench) -> dict[str, Any]:
    """Find each side's best number of producers and workers, then measure, alternating the sides."""
    plan = bench.plan
    rivals = {config: bench.celery(config) for config in bench.rivals[: plan.kinds]}
    ours = {count: bench.headrace(count) for count in plan.processes}
    their_tries = _try(bench, rivals, plan.sweep_requests)
    our_tries = _try(bench, ours, plan.headrace_requests // 2)
    chosen = {"celery": fastest(their_tries), "headrace": fastest(our_tries)}
    sides: dict[str, Side] = {"celery": rivals[chosen["celery"][0]], "headrace": ours[chosen["headrace"][0]]}
    requests = {"celery": plan.celery_requests, "headrace": plan.headrace_requests}
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(plan.rounds):
        for name, side in sides.items():
            rates[name].append(live(bench.servers, side, requests[name], chosen[name][1]))
        say(f"  round {number + 1}: " + ", ".join(f"{name} {runs[-1].per_s:,.0f}/s" for name, runs in rates.items()))
    described = {name: f"{side.describe()}, {chosen[name][1]} producers" for name, side in sides.items()}
    bench.live_rates = {name: summary("", runs)["per_s"] for name, runs in rates.items()}
    return {
        **ratios(rates),
        "tried": {f"{key}, {producers} producers": rate for (key, producers), rate in their_tries.items()}
        | {f"headrace, {key} worker processes, {count} producers": rate for (key, count), rate in our_tries.items()},
        "sides": {name: summary(described[name], runs) for name, runs in rates.items()},
    }


def _try(bench: Bench, sides: dict[Any, Any], requests: int) -> dict[tuple[Any, int], float]:
    found = {}
    for key, side in sides.items():
        for producers in bench.plan.producers:
            found[key, producers] = live(bench.servers, side, requests, producers).per_s
            say(f"  {side.name}, {side.describe()}, {producers} producers: {found[key, producers]:,.0f}/s")
    return found
