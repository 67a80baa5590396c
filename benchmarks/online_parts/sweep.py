"""Finds the fastest configuration of each kind of plain Celery worker, so that headrace meets it at its best."""

from __future__ import annotations

from typing import Any

from online_parts.bench import Bench, say
from online_parts.celery_side import CeleryConfig
from online_parts.measure import Backlog

#: One worker in each pool, and two solo workers side by side: as many processes as headrace may have.
KINDS = (("prefork", 1), ("solo", 1), ("threads", 1), ("solo", 2))

#: Each candidate is tried so often, and counts by its best: noise only slows.
PASSES = 2


def sweep(bench: Bench) -> list[dict[str, Any]]:
    """Try every kind with every prefetch multiplier and encoding on a preloaded queue; fill `bench.rivals`."""
    plan = bench.plan
    if not plan.sweep_prefetch:
        bench.rivals = [CeleryConfig()]
        return []
    found: dict[CeleryConfig, float] = {}
    for encoding in plan.sweep_encodings:
        candidates = [
            CeleryConfig(pool, prefetch, encoding, workers)
            for pool, workers in KINDS
            # JSON lists only cost time elsewhere: one prefetch shows it.
            for prefetch in (plan.sweep_prefetch if encoding == plan.sweep_encodings[0] else (64,))
        ]
        found.update(_try(bench, encoding, candidates))
    best = {kind: max((c for c in found if (c.pool, c.workers) == kind), key=found.__getitem__) for kind in KINDS}
    bench.rivals = sorted(best.values(), key=found.__getitem__, reverse=True)
    return [{"config": str(config), "drain_per_s": rate} for config, rate in found.items()]


def _try(bench: Bench, encoding: str, candidates: list[CeleryConfig]) -> dict[CeleryConfig, float]:
    backlog = Backlog(bench.celery(CeleryConfig(encoding=encoding)), bench.plan.sweep_requests)
    rates = dict.fromkeys(candidates, 0.0)
    for _ in range(PASSES):
        for config in candidates:
            rate = backlog.drain(bench.servers, bench.celery(config)).per_s
            rates[config] = max(rates[config], rate)
            say(f"  plain Celery, {config}: {rate:,.0f}/s")
    return rates
