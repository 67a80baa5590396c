"""What the micro-batcher itself costs: nanoseconds per request of `put` and `take`, by traffic.

    python benchmarks/batcher.py [--json]

Each figure is the best of several rounds of 64,000 one-row requests that leave in batches of 64.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from headrace.workers.batching import BatchPolicy, CostModel, Item, MicroBatcher

ROUNDS = 7
REQUESTS = 64_000
ROWS = 64

MakeItem = Callable[[int, float], Item[int]]

TRAFFIC: dict[str, MakeItem] = {
    "plain": lambda i, now: Item(i, 1, 0, None, now),
    "deadlines": lambda i, now: Item(i, 1, 0, now + 2 + i % 7, now),
    "priorities": lambda i, now: Item(i, 1, i % 10, None, now),
    "8 buckets": lambda i, now: Item(i, 1, 0, None, now, (i // ROWS % 8, 16)),
}


def measure(make: MakeItem) -> dict[str, float]:
    """Give the best nanoseconds per request of put and of take, and of take when a backlog is left."""
    best = {"put_ns": float("inf"), "take_ns": float("inf"), "backlog_take_ns": float("inf")}
    for _ in range(ROUNDS):
        one_round = measure_round(make)
        best = {name: min(best[name], one_round[name]) for name in best}
    best["put_take_ns"] = best["put_ns"] + best["take_ns"]
    return best


def measure_round(make: MakeItem) -> dict[str, float]:
    batcher = MicroBatcher[int](BatchPolicy(max_rows=ROWS), CostModel())
    items = [make(i, i * 1e-5) for i in range(REQUESTS)]
    put_ns = take_ns = 0
    for start in range(0, REQUESTS, ROWS):
        group = items[start : start + ROWS]
        began = time.perf_counter_ns()
        for item in group:
            batcher.put(item)
        middle = time.perf_counter_ns()
        batch = batcher.take(group[-1].arrived)
        ended = time.perf_counter_ns()
        assert batch is not None
        assert batch.rows == ROWS
        put_ns += middle - began
        take_ns += ended - middle
    batcher.put_many(items)
    began = time.perf_counter_ns()
    while batcher.take(items[-1].arrived):
        pass
    backlog_ns = time.perf_counter_ns() - began
    return {
        "put_ns": put_ns / REQUESTS,
        "take_ns": take_ns / REQUESTS,
        "backlog_take_ns": backlog_ns / REQUESTS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    results = {name: measure(make) for name, make in TRAFFIC.items()}
    if as_json:
        print(json.dumps(results))
        return
    print(f"{'ns per request':<16}{'put':>8}{'take':>8}{'put+take':>10}{'take of a backlog':>20}")
    for name, row in results.items():
        print(
            f"{name:<16}{row['put_ns']:>8.0f}{row['take_ns']:>8.0f}{row['put_take_ns']:>10.0f}"
            f"{row['backlog_take_ns']:>20.0f}"
        )


if __name__ == "__main__":
    main()
