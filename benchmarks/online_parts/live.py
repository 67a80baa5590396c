"""Section live: producers and workers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from online_parts.bench import Bench, ratios, say, summary
from online_parts.celery_side import CeleryConfig
from online_parts.headrace_side import HeadraceConfig
from online_parts.measure import Rate, live
from online_parts.tries import Tries


@dataclass(frozen=True)
class Cast:
    """Workers, and how many producer processes feed them."""

    workers: CeleryConfig | HeadraceConfig
    producers: int

    def __str__(self) -> str:
        return f"{self.workers}, {self.producers} producer{'s' if self.producers > 1 else ''}"


def run(bench: Bench) -> dict[str, Any]:
    """Find each side's best number of workers and producers, then measure, alternating the sides."""
    plan = bench.plan
    tried = {
        "celery": _try(bench, bench.rivals[: plan.kinds], plan.sweep_requests),
        "celery_two_workers": _try(bench, [bench.two_workers], plan.sweep_requests),
        "headrace": _try(bench, bench.ours, plan.headrace_sweep_requests),
    }
    chosen = {name: max(rates, key=rates.__getitem__) for name, rates in tried.items()}
    sides = {name: bench.side(cast.workers) for name, cast in chosen.items()}
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(plan.rounds):
        for name, side in sides.items():
            requests = plan.live_requests if name == "headrace" else plan.celery_requests
            rates[name].append(live(bench.servers, side, requests, chosen[name].producers))
        say(f"  round {number + 1}: " + ", ".join(f"{name} {runs[-1].per_s:,.0f}/s" for name, runs in rates.items()))
    found = {name: {**summary(chosen[name].workers, runs), "config": str(chosen[name])} for name, runs in rates.items()}
    bench.live_rates = {name: found[name]["per_s"] for name in ("celery", "headrace")}
    return {
        **ratios(rates),
        "tried": {name: {str(cast): rate for cast, rate in each.items()} for name, each in tried.items()},
        "sides": found,
    }


def _try(bench: Bench, workers: list[Any], requests: int) -> dict[Cast, float]:
    """Try workers with every number of producers."""
    casts = [Cast(config, producers) for config in workers for producers in bench.plan.producers]
    if len(casts) < 2:
        return dict.fromkeys(casts, 0.0)
    sides = {cast: bench.side(cast.workers) for cast in casts}

    def attempt(cast: Cast, count: int) -> Rate:
        return live(bench.servers, sides[cast], count, cast.producers)

    return Tries(bench.plan, requests, say).rates(casts, attempt, sides[casts[0]].name)
