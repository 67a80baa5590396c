"""Finds the fastest configurations of both sides on a preloaded queue, so that each meets the other at its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from online_parts.bench import Bench, say
from online_parts.celery_side import CeleryConfig
from online_parts.headrace_side import HeadraceConfig
from online_parts.measure import Backlog, Rate
from online_parts.side import Side
from online_parts.tries import Tries, best_of_each

#: One worker command in each pool, and two solo workers side by side: as many processes as headrace may have.
KINDS = (("prefork", 1), ("solo", 1), ("threads", 1), ("solo", 2))

Config = TypeVar("Config", CeleryConfig, HeadraceConfig)


def sweep_celery(bench: Bench) -> dict[str, float]:
    """Try every kind with every prefetch multiplier and encoding; fill `bench.rivals` and `bench.two_workers`."""
    plan = bench.plan
    if not plan.sweep_prefetch:
        return {}
    tries = Tries(plan, plan.sweep_requests, say)
    found: dict[CeleryConfig, float] = {}
    for encoding in plan.sweep_encodings:
        # JSON lists only cost time elsewhere: one prefetch shows it.
        prefetches = plan.sweep_prefetch if encoding == plan.sweep_encodings[0] else (64,)
        candidates = [
            CeleryConfig(pool, prefetch, encoding, workers) for pool, workers in KINDS for prefetch in prefetches
        ]
        queue = _Queue(bench, bench.celery(CeleryConfig(encoding=encoding)))
        found |= _drained(tries, queue, candidates, bench.celery)
    best = best_of_each(found, lambda config: (config.pool, config.workers))
    bench.rivals = [config for config in best if config.workers == 1]
    (bench.two_workers,) = (config for config in best if config.workers == 2)
    return {str(config): rate for config, rate in found.items()}


def sweep_headrace(bench: Bench) -> dict[str, float]:
    """Try every number of worker processes with every batch size; fill `bench.ours` and `bench.ours_64`."""
    plan = bench.plan
    candidates = [HeadraceConfig(processes, rows) for processes in plan.processes for rows in plan.max_rows]
    if len(candidates) < 2:
        bench.ours = candidates
        return {}
    queue = _Queue(bench, bench.headrace())
    tries = Tries(plan, plan.headrace_sweep_requests, say)
    found = _drained(tries, queue, candidates, bench.headrace)
    bench.ours = best_of_each(found, lambda config: config.processes)
    bench.ours_64 = max((config for config in candidates if config.max_rows == 64), key=found.__getitem__)
    return {str(config): rate for config, rate in found.items()}


def _drained(
    tries: Tries, queue: _Queue, candidates: Sequence[Config], make: Callable[[Config], Side]
) -> dict[Config, float]:
    return tries.rates(candidates, lambda config, count: queue.drain(make(config), count), make(candidates[0]).name)


class _Queue:
    """A preloaded queue that is filled anew when a longer one is asked for."""

    def __init__(self, bench: Bench, filler: Side) -> None:
        self._servers, self._filler = bench.servers, filler
        self._backlog: Backlog | None = None

    def drain(self, side: Side, count: int) -> Rate:
        if self._backlog is None or self._backlog.count < count:
            self._backlog = Backlog(self._filler, count)
        return self._backlog.drain(self._servers, side, count)
