"""What two idle Celery workers cost with 1 queue and with 2,000: their processors, the server's, and commands a second.

The same ordinary app by `redis://` and by `headrace://`; and `headrace worker` with one model.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import psutil
import redis
from benchmarks.online_parts.processes import cpu_seconds
from benchmarks.resilience_parts.stage import Stage

#: Idle for so long before it is measured, and while.
SETTLE_S, MEASURED_S = 8.0, 15.0

WORKERS = 2


def run(stage: Stage, _: Any) -> dict[str, Any]:
    """Measure each; figures of one worker but for the server's."""
    found: dict[str, Any] = {}
    for queues in (1, 2_000):
        for scheme in ("redis", "headrace"):
            found[f"{scheme}://, {queues} queues"] = _measure(stage, _plain(stage, scheme, queues))
        ours, theirs = found[f"headrace://, {queues} queues"], found[f"redis://, {queues} queues"]
        found[f"headrace ÷ redis, {queues} queues"] = {
            key: round(value / theirs[key], 2) if theirs[key] else None for key, value in ours.items()
        }
    found["headrace worker"] = _measure(stage, [["-m", "headrace.cli", "worker"]] * WORKERS)
    return found


def _plain(stage: Stage, scheme: str, queues: int) -> list[list[str]]:
    names = ",".join(f"queue-{number}" for number in range(queues))
    url = stage.servers.valkey_database(3).replace("redis", scheme)
    command = ["-m", "celery", "-A", "benchmarks.resilience_parts.plain", "-b", url, "worker", "--pool", "solo"]
    return [[*command, "-Q", names, "-n", f"w{number}@%h"] for number in range(WORKERS)]


def _measure(stage: Stage, commands: list[list[str]]) -> dict[str, float]:
    with (
        contextlib.ExitStack() as running,
        redis.Redis.from_url(stage.servers.valkey_database(3)) as broker,
    ):
        env = {**stage.environment(stage.of_workers), **_direct(stage)}
        workers = [running.enter_context(stage.process(command, env)) for command in commands]
        time.sleep(SETTLE_S)
        began, before = time.monotonic(), _figures(stage, broker, workers)
        time.sleep(MEASURED_S)
        seconds, after = time.monotonic() - began, _figures(stage, broker, workers)
    worker, server, commands_ = ((b - a) / seconds for a, b in zip(before, after, strict=True))
    found = {
        "worker_cpu_percent": round(100 * worker / WORKERS, 2),
        "server_cpu_percent": round(100 * server, 2),
        "commands_per_s": round(commands_, 1),
    }
    print(f"  {found}", file=sys.stderr, flush=True)
    return found


def _figures(stage: Stage, broker: redis.Redis, workers: Any) -> tuple[float, float, float]:
    used = sum(cpu_seconds(worker.pid) for worker in workers)
    server = psutil.Process(stage.servers.valkey_pid).cpu_times()
    return used, server.user + server.system, float(broker.info("stats")["total_commands_processed"])


def _direct(stage: Stage) -> dict[str, str]:
    return {
        "HEADRACE_BROKER_URL": stage.servers.valkey_database(3),
        "HEADRACE_DATABASE_URL": stage.servers.database_url,
    }
