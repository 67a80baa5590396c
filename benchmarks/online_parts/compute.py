"""Section compute: single-row requests to a model of milliseconds a row, against a bare loop of full batches."""

from __future__ import annotations

import statistics
from typing import Any

from online_parts.bench import Bench, say, summary
from online_parts.measure import Backlog
from online_parts.models import CNN
from online_parts.reference import Reference


def run(bench: Bench) -> dict[str, Any]:
    """Alternate the bare loop and headrace with one worker process; both use one ONNX Runtime thread."""
    plan, side = bench.plan, bench.headrace(model=CNN)
    bare = Reference(bench.models, CNN)
    queue = Backlog(side, plan.compute_rows)
    loops, rates = [], []
    for number in range(plan.rounds):
        before = bare.bare_rate(plan.bare_s / 2)
        rates.append(queue.drain(bench.servers, side))
        # Half before and half after: a machine that slows down slows both.
        loops.append((before + bare.bare_rate(plan.bare_s / 2)) / 2)
        say(f"  round {number + 1}: bare loop {loops[-1]:,.1f} rows/s, headrace {rates[-1].per_s:,.1f}/s")
    return {
        "ratio": statistics.median(rate.per_s / loop for rate, loop in zip(rates, loops, strict=True)),
        "batch_rows": CNN.max_rows,
        "bare_rows_per_s": statistics.median(loops),
        "bare_ms_per_row": 1e3 / statistics.median(loops),
        "bare_runs": loops,
        "headrace": summary(side.config, rates),
    }
