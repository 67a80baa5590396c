"""The rival as a side: its workers in any of Celery's pools, results in Redis."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import redis

from online_parts import servers
from online_parts.agent import Agent, agent
from online_parts.celery_app import QUEUE
from online_parts.models import MLP, model_file
from online_parts.probe import Probe
from online_parts.processes import running
from online_parts.reference import Reference
from online_parts.side import WrongResult, check_count


@dataclass(frozen=True)
class CeleryConfig:
    """pool: solo, prefork or threads, with 2 children or threads. workers: worker processes side by side."""

    pool: str = "prefork"
    prefetch: int = 64
    encoding: str = "base64"
    workers: int = 1

    def __str__(self) -> str:
        size = "" if self.pool == "solo" else " 2"
        many = f"{self.workers} workers, " if self.workers > 1 else ""
        return f"{many}{self.pool}{size}, prefetch {self.prefetch}, {self.encoding}"


class CelerySide:
    """Plain Celery 5.7: Redis broker, Redis results, JSON."""

    name = "celery"

    def __init__(self, at: servers.Servers, models: Path, config: CeleryConfig) -> None:
        self.config = config
        self._folder = at.folder
        #: Where the copy of the preloaded queue lies; one for each encoding.
        self._kept = f"{QUEUE}-{config.encoding}"
        self._env = {
            "RIVAL_BROKER": at.valkey_database(servers.CELERY_BROKER),
            "RIVAL_RESULTS": at.valkey_database(servers.CELERY_RESULTS),
            "RIVAL_MODEL": str(model_file(models, MLP)),
            "RIVAL_PREFETCH": str(config.prefetch),
            "RIVAL_ENCODING": config.encoding,
        }
        self._broker = redis.Redis.from_url(self._env["RIVAL_BROKER"])
        self._results = redis.Redis.from_url(self._env["RIVAL_RESULTS"])
        self.probe = Probe(self._env["RIVAL_RESULTS"])
        self._reference = Reference(models, MLP)
        self._at, self._models = at, models

    def describe(self) -> str:
        return str(self.config)

    def clear(self) -> None:
        self._broker.flushdb()
        self._results.flushdb()

    @contextlib.contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        command = ["-m", "online_parts.celery_workers", str(self.config.workers), self.config.pool]
        with running(command, self._env, self._folder / "celery.log") as process:
            yield process

    @contextlib.contextmanager
    def client(self) -> Iterator[Agent]:
        with agent("celery", self._env, self._folder / "celery-client.log") as client:
            yield client

    def keep_queue(self) -> None:
        self._broker.copy(QUEUE, self._kept, destination_db=str(servers.CELERY_TEMPLATE), replace=True)

    def refill_queue(self, count: int) -> None:
        with redis.Redis.from_url(self._at.valkey_database(servers.CELERY_TEMPLATE)) as kept:
            kept.copy(self._kept, QUEUE, destination_db=str(servers.CELERY_BROKER), replace=True)
        self._broker.ltrim(QUEUE, -count, -1)

    def done(self, total: int) -> int:  # noqa: ARG002
        (size,) = self.probe.run(("DBSIZE",))
        return int(size)

    def verify(self, sample: list[tuple[int, str]], total: int) -> None:
        check_count(self.name, int(self._results.dbsize()), total)
        for index, request_id in sample:
            meta = json.loads(self._results.get(f"celery-task-meta-{request_id}") or "{}")
            if meta.get("status") != "SUCCESS":
                raise WrongResult(f"celery's request {index} ended as {meta}")
            self._reference.check(index, np.array(meta["result"], dtype=np.float32))

    def close(self) -> None:
        """Close connections."""
        self._broker.close()
        self._results.close()
        self.probe.close()
