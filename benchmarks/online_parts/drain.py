"""Section drain: a preloaded queue, workers only."""

from __future__ import annotations

from typing import Any

from online_parts.bench import Bench, fastest, ratios, say, summary
from online_parts.measure import Backlog, Rate
from online_parts.side import Side


def run(bench: Bench) -> dict[str, Any]:
    """Measure, alternating the sides."""
    plan, rivals = bench.plan, bench.rival_sides()
    our_queue = Backlog(bench.headrace(), plan.headrace_requests)
    tried = {count: our_queue.drain(bench.servers, bench.headrace(count)).per_s for count in plan.processes}
    say("  headrace: " + ", ".join(f"{rate:,.0f}/s with {count}" for count, rate in tried.items()))
    their_queue = Backlog(rivals["celery"], plan.celery_requests)
    sides: dict[str, Side] = {**rivals, "headrace": bench.headrace(fastest(tried))}
    queues = {name: our_queue if name == "headrace" else their_queue for name in sides}
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(plan.rounds):
        for name, side in sides.items():
            rates[name].append(queues[name].drain(bench.servers, side))
        say(f"  round {number + 1}: " + ", ".join(f"{name} {runs[-1].per_s:,.0f}/s" for name, runs in rates.items()))
    return {
        **ratios(rates),
        "tried": {f"headrace, {count} worker processes": rate for count, rate in tried.items()},
        "sides": {
            name: {
                **summary(sides[name].describe(), runs),
                "submit_per_s": queues[name].submit_per_s,
                "submit_round_trips": queues[name].submit_round_trips,
            }
            for name, runs in rates.items()
        },
    }
