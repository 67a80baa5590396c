"""headrace as a side: its own worker command, rows in Postgres."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import psycopg
import redis

from headrace.queueing import keys
from headrace.queueing.lists import PRIORITY_STEPS
from online_parts import servers
from online_parts.agent import Agent, agent
from online_parts.models import BenchModel, models_folder
from online_parts.probe import Probe
from online_parts.processes import code_of, running
from online_parts.reference import Reference
from online_parts.side import WrongResult, check_count

#: What waits in the priority lists (KEYS from 2) and what consumers hold (KEYS 1 lists them), read at one moment.
#: headrace acknowledges last: a request that is in neither has its row committed.
OPEN_LUA = f"""
local open = 0
for at = 2, #KEYS do open = open + redis.call('LLEN', KEYS[at]) end
for _, consumer in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  open = open + redis.call('HLEN', '{keys.PLAIN.in_flight("")}' .. consumer)
end
return open
"""


@dataclass(frozen=True)
class HeadraceConfig:
    """processes: worker processes. max_rows: the largest batch of the model's package.

    checkout: where the code lies that runs, if not where this file does.
    """

    processes: int = 1
    max_rows: int = 64
    checkout: Path | None = None

    def __str__(self) -> str:
        return f"{self.processes} process{'es' if self.processes > 1 else ''}, batches ≤ {self.max_rows}"


class HeadraceSide:
    """headrace: `headrace worker`, `Client`, Valkey as the broker, results in Postgres."""

    name = "headrace"

    def __init__(self, at: servers.Servers, root: Path, model: BenchModel, config: HeadraceConfig) -> None:
        """root: the folder in which `write_models` wrote a models folder for each batch size."""
        self.config = config
        self._at, self._models = at, models_folder(root, config.max_rows)
        self.env = {
            "HEADRACE_BROKER_URL": at.valkey_database(servers.HEADRACE_BROKER),
            "HEADRACE_DATABASE_URL": at.database_url,
            "HEADRACE_MODELS": str(self._models),
            "HEADRACE_HOME": str(at.folder / "home"),
            "BENCH_MODEL": model.name,
            **(code_of(config.checkout) if config.checkout else {}),
        }
        queue = f"infer.{model.name}"
        self._lists = [keys.PLAIN.queue_list(queue, step) for step in PRIORITY_STEPS]
        self._broker = redis.Redis.from_url(self.env["HEADRACE_BROKER_URL"])
        self.probe = Probe(self.env["HEADRACE_BROKER_URL"])
        self._store = psycopg.connect(at.database_url, autocommit=True)
        self._reference = Reference(root, model)

    def describe(self) -> str:
        return str(self.config)

    def clear(self) -> None:
        self._broker.flushdb()
        self._store.execute("TRUNCATE predictions")
        self._store.execute("VACUUM predictions")

    @contextlib.contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        command = ["-m", "headrace.cli", "worker"]
        options = ["--models", str(self._models), "--processes", str(self.config.processes)]
        with running([*command, *options], self.env, self._at.folder / "headrace.log") as process:
            yield process

    @contextlib.contextmanager
    def client(self) -> Iterator[Agent]:
        with agent("headrace", self.env, self._at.folder / "headrace-client.log") as client:
            yield client

    def keep_queue(self) -> None:
        self._broker.copy(self._lists[0], self._lists[0], destination_db=str(servers.HEADRACE_TEMPLATE), replace=True)

    def refill_queue(self, count: int) -> None:
        with redis.Redis.from_url(self._at.valkey_database(servers.HEADRACE_TEMPLATE)) as kept:
            kept.copy(self._lists[0], self._lists[0], destination_db=str(servers.HEADRACE_BROKER), replace=True)
        self._broker.ltrim(self._lists[0], -count, -1)

    def done(self, total: int) -> int:
        (waiting,) = self.probe.run(("EVAL", OPEN_LUA, 1 + len(self._lists), keys.PLAIN.leases, *self._lists))
        return total - int(waiting)

    def verify(self, sample: list[tuple[int, str]], total: int) -> None:
        counted = self._store.execute("SELECT count(*) FROM predictions WHERE state = 'succeeded'").fetchone()
        check_count(self.name, counted[0] if counted else 0, total)
        for index, request_id in sample:
            row = self._store.execute("SELECT outputs FROM predictions WHERE id = %s", [request_id]).fetchone()
            if row is None or row[0] is None:
                raise WrongResult(f"headrace's request {index} ({request_id}) has no outputs in Postgres")
            self._reference.check(index, np.array(row[0]["scores"][0], dtype=np.float32))

    def close(self) -> None:
        """Close connections."""
        self._broker.close()
        self.probe.close()
        self._store.close()
