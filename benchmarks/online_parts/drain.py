"""Section drain: a preloaded queue, workers only."""

from __future__ import annotations

from typing import Any

from online_parts.bench import Bench, ratios, say, summary
from online_parts.celery_side import CeleryConfig
from online_parts.headrace_side import HeadraceConfig
from online_parts.measure import Backlog, Rate


def run(bench: Bench) -> dict[str, Any]:
    """Measure the configurations that won the sweep, alternating the sides."""
    configs = _configs(bench)
    sides = {name: bench.side(config) for name, config in configs.items()}
    queues = _queues(bench)
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(bench.plan.rounds):
        for name, side in sides.items():
            rates[name].append(queues[name].drain(bench.servers, side))
        say(f"  round {number + 1}: " + ", ".join(f"{name} {runs[-1].per_s:,.0f}/s" for name, runs in rates.items()))
    return {
        **ratios(rates),
        "sides": {
            name: {
                **summary(configs[name], runs),
                "submit_per_s": queues[name].submit_per_s,
                "submit_round_trips": queues[name].submit_round_trips,
            }
            for name, runs in rates.items()
        },
    }


def _configs(bench: Bench) -> dict[str, CeleryConfig | HeadraceConfig]:
    """Both rivals and headrace at its best; beside it at batches of 64, where it is faster with larger ones."""
    configs: dict[str, CeleryConfig | HeadraceConfig] = {
        "celery": bench.rivals[0],
        "celery_two_workers": bench.two_workers,
        "headrace": bench.ours[0],
    }
    if bench.ours[0].max_rows != bench.ours_64.max_rows:
        configs["headrace_64"] = bench.ours_64
    return configs


def _queues(bench: Bench) -> dict[str, Backlog]:
    """Fill one queue for each way of encoding a request; what a batch holds makes no difference to it."""
    ours = Backlog(bench.headrace(), bench.plan.headrace_requests)
    celery = Backlog(bench.celery(bench.rivals[0]), bench.plan.celery_requests)
    same = bench.rivals[0].encoding == bench.two_workers.encoding
    pair = celery if same else Backlog(bench.celery(bench.two_workers), bench.plan.celery_requests)
    return {"celery": celery, "celery_two_workers": pair, "headrace": ours, "headrace_64": ours}
